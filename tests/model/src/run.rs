//! Running programs.

use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rummelplatz::RingError;
use rummelplatz::sim::{self, Faults, Simulation};

use crate::program::{Action, End, GRACE, Mode, Program};
use crate::ring::{Model, Operation, Planned};
use crate::surroundings::{OtherSide, Surroundings};
use crate::world::{Caller, World};

/// The figures of the programs that were run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    pub programs: u64,
    pub requests: u64,
    pub enters: u64,
    pub most_enters: u64,
    pub most_unanswered: u64,
    pub abandoned: u64,
    pub panics: u64,
    pub errors: u64,
    /// Files that came into rings' tables, as handlers were told.
    pub files: u64,
}

impl Figures {
    fn add(&mut self, other: Figures) {
        self.programs += other.programs;
        self.requests += other.requests;
        self.enters += other.enters;
        self.most_enters = self.most_enters.max(other.most_enters);
        self.most_unanswered = self.most_unanswered.max(other.most_unanswered);
        self.abandoned += other.abandoned;
        self.panics += other.panics;
        self.errors += other.errors;
        self.files += other.files;
    }
}

/// After this many enters, a program is considered to have no end.
const MOST_ENTERS: u64 = 4_000;

/// Runs a program under the simulated kernel.
///
/// # Errors
///
/// What is wrong.
pub fn simulate(program: &Program) -> Result<Figures, Vec<String>> {
    let simulation = Simulation::new(program.seed);
    simulation.set_faults(program.faults);
    simulation.limit_enters(MOST_ENTERS);
    let world = World::new(program, Some(simulation.clone()), Surroundings::nothing());
    let (answers, idle) = (Arc::downgrade(&world), Arc::downgrade(&world));
    let answer = move |asked: &sim::Asked| match answers.upgrade() {
        Some(world) => world.answer(asked),
        None => sim::Answer::Wait,
    };
    // SAFETY: the world writes to the memory of what is read, and gives away the descriptors that it answers with.
    unsafe { simulation.on_request_unchecked(answer) };
    simulation.on_idle(move || {
        idle.upgrade().is_some_and(|world| {
            world.name_what_is_over();
            world.check_files(true);
            world.release()
        })
    });
    simulation.take_log();
    let mut figures = run(program, &world)?;
    let made = simulation.figures();
    figures.enters = made.enters;
    figures.most_enters = made.enters;
    figures.most_unanswered = made.most_unanswered;
    // No wave of cancels goes out before the last one is answered; but a stream that goes on is cancelled again.
    let cancels = |action: &&Action| {
        let pauses = matches!(action, Action::Pause { .. } | Action::PauseStream { .. });
        pauses || matches!(action, Action::Cancel { .. } | Action::CancelAll { .. })
    };
    let most = 2 + program.actions.iter().filter(cancels).count() as u64 + world.most_insisted();
    match made.most_unanswered {
        few if few <= most => Ok(figures),
        many => Err(vec![format!("a request was cancelled {many} times without an answer")]),
    }
}

/// Runs a program on the real kernel, with somebody at the other end of each descriptor.
///
/// # Errors
///
/// What is wrong.
fn run_for_real(program: &Program, other_side: &OtherSide) -> Result<Figures, Vec<String>> {
    let ran = run(program, &World::new(program, None, other_side.surroundings.clone()));
    let wrong = other_side.surroundings.heard.as_ref().map(|heard| heard.wrong()).unwrap_or_default();
    if wrong.is_empty() { ran } else { Err(wrong) }
}

fn run(program: &Program, world: &Arc<World>) -> Result<Figures, Vec<String>> {
    let mut figures = Figures { programs: 1, ..Figures::default() };
    let mut ring = match build(program, world) {
        Ok(ring) => ring,
        Err(error) => return Err(vec![format!("no ring: {error}")]),
    };
    if let Some(simulation) = &world.simulation {
        simulation.take_log();
        if program.neighbour {
            world.new_neighbour();
        }
    }
    let mut leaked = None;
    // A run that panics, and a ring that is dropped, don't report what they leak.
    let may_leak = program.faults.lost > 0.0 || program.faults.never > 0.0;
    let runs = if program.twice { 2 } else { 1 };
    for _ in 0..runs {
        world.begins();
        let driven = catch_unwind(AssertUnwindSafe(|| drive(program, world, &mut ring)));
        let panicked = driven.is_err();
        match &driven {
            Ok(result) => check_result(program, world, result),
            Err(_) => world.forget_result(),
        }
        match driven {
            Ok(Ok(())) => {}
            Ok(Err(RingError::Api(cause)))
                if cause.error.raw_os_error() == Some(libc::EDEADLK) && program.faults.never == 0.0 =>
            {
                world.violation("the ring waits for what never comes".to_owned());
            }
            Ok(Err(error)) => {
                figures.errors += 1;
                if let Some(stuck) = error.abandoned() {
                    let errno = (program.faults.lost > 0.0).then_some(libc::EBADR);
                    if stuck.errno != errno {
                        world.violation(format!("abandoned for {:?}, not for {errno:?}", stuck.errno));
                    }
                    leaked = Some(stuck.clone());
                    figures.abandoned += 1;
                    break;
                }
            }
            Err(panic) if panic.is::<Planned>() => figures.panics += 1,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                world.violation(format!("a panic: {}", text.unwrap_or_default()));
            }
        }
        let stats = ring.stats();
        world.check_figures(&stats);
        let is_told = panicked || leaked.is_some() || program.end == End::Drop;
        if stats.in_flight > 0 && !is_told {
            world.violation(format!("nothing is said of what is abandoned: {stats:?}"));
        }
        if stats.in_flight > 0 && leaked.is_none() && !may_leak && program.end != End::Drop {
            world.violation(format!("after the run: {stats:?}"));
        }
        let is_over = stats.in_flight == 0 && leaked.is_none() && !may_leak && program.end != End::Drop;
        world.files_end(is_over);
        if is_over && program.neighbour {
            world.borrow(true);
        }
        if !world.is_sound() {
            break;
        }
    }
    if ring.stats().in_flight > 0 {
        world.lock().silenced = true;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop_ring(ring)))
        && !panic.is::<Planned>()
    {
        world.violation("the drop panicked".to_owned());
    }
    figures.requests = world.accepted_requests() as u64;
    figures.files = world.files();
    if let Some(stuck) = &leaked {
        world.check_stuck(stuck);
    }
    let leaked = match leaked {
        None if may_leak => Some(world.missing()),
        leaked => leaked.map(|stuck| stuck.requests.len()),
    };
    let wrong = world.check_end(leaked);
    if wrong.is_empty() { Ok(figures) } else { Err(wrong) }
}

/// A run reports why it has ended, and what has failed in its teardown.
fn check_result(program: &Program, world: &World, result: &Result<(), RingError<Model>>) {
    let others = |error: &RingError<Model>| error.teardown_errors().iter().map(ToString::to_string).collect();
    match result {
        Ok(()) => world.check_result(true, None, Vec::new()),
        Err(error) => {
            let others = others(error);
            match error {
                RingError::Setup(cause) => world.check_result(true, Some(cause.error.to_string()), others),
                RingError::Completion(cause) => {
                    world.check_result(true, Some(cause.error.to_string()), others);
                }
                RingError::Teardown(cause) => {
                    world.check_result(false, Some(cause.error.to_string()), others);
                }
                // An unusable ring reports only that.
                RingError::Abandoned { stuck } if stuck.errno.is_some() => world.forget_result(),
                _ if program.faults.lost > 0.0 => world.forget_result(),
                _ => world.check_result(true, None, others),
            }
        }
    }
}

fn drop_ring(ring: Model) {
    let Model { first, second, .. } = ring;
    drop((first, second));
}

fn build(program: &Program, world: &Arc<World>) -> Result<Model, Box<dyn std::error::Error>> {
    let entries = NonZeroU32::new(program.entries).ok_or("no entries")?;
    let completions = NonZeroU32::new(program.completions).ok_or("no completions")?;
    let (first, second) = Operation::both(world);
    let mut builder = Model::builder(first, second).grace(GRACE);
    builder = match &world.simulation {
        Some(simulation) => builder.raw_ring(simulation.raw_ring_with(entries, completions)?),
        None => builder.entries(entries).completion_entries(completions),
    };
    if let Some(limit) = program.backlog_limit.and_then(NonZeroUsize::new) {
        builder = builder.backlog_limit(limit);
    }
    if let Some(limit) = program.request_limit.and_then(NonZeroU32::new) {
        builder = builder.request_limit(limit);
    }
    if let Some(places) = program.places.and_then(NonZeroU32::new) {
        builder = builder.direct_descriptors(places);
    }
    if program.deadline {
        builder = builder.deadline(Duration::from_millis(500));
    }
    let mut ring = builder.build()?;
    ring.submitter(Model::FIRST).register_buffers(&world.registered)?;
    if matches!(program.end, End::Stop(_)) {
        let handle = ring.handle().downgrade();
        ring.first.handle = Some(handle.clone());
        ring.second.handle = Some(handle);
    }
    Ok(ring)
}

/// Runs the ring as the program says.
fn drive(program: &Program, world: &Arc<World>, ring: &mut Model) -> Result<(), RingError<Model>> {
    match (program.mode, program.end) {
        (Mode::Run, End::Finish | End::Drop) | (Mode::Turns, _) => turn(program, world, ring),
        (Mode::Run, _) => ring.run(),
    }
}

/// How long a teardown of streams that begin late may take: their completions arrive, so this is shorter than a wait in
/// which nothing happens.
const LONGEST_END: Duration = Duration::from_millis(9);

/// How many turns a program is given after it has done all its actions.
const TURNS: u32 = 40;

fn turn(program: &Program, world: &Arc<World>, ring: &mut Model) -> Result<(), RingError<Model>> {
    let outside = ring.second.clone();
    let mut left = TURNS;
    while left > 0 {
        let progress = ring.turn()?;
        world.check_figures(&ring.stats());
        if progress.is_finished() || !world.is_sound() {
            return Ok(());
        }
        let acted = !world.lock().actions.is_empty();
        outside.act(&mut ring.submitter(Model::FIRST), Caller::Outside);
        if !acted && (progress.is_idle() || matches!(program.end, End::Drop | End::Finish)) {
            break;
        }
        left -= u32::from(!acted);
    }
    world.may_end();
    if program.end == End::Drop {
        return Ok(());
    }
    let began = world.now();
    let result = ring.finish();
    let took = world.now() - began;
    if program.is_of_late_streams() && took > LONGEST_END {
        world.violation(format!("the teardown took {took:?}"));
    }
    result
}

/// How many programs to run, as `RUMMEL_PROGRAMS` says.
pub fn programs(usually: u64) -> u64 {
    std::env::var("RUMMEL_PROGRAMS").ok().and_then(|number| number.parse().ok()).unwrap_or(usually)
}

/// Runs this many programs under the simulated kernel, in as many threads as there are processors, or only the one of
/// `RUMMEL_SEED`.
///
/// # Errors
///
/// The first program that fails, made smaller, and what is wrong with it.
pub fn explore(from: u64, count: u64) -> Result<Figures, String> {
    explore_with(from, count, || Ok(simulate))
}

/// As [`explore`], on the real kernel.
///
/// # Errors
///
/// As for [`explore`]; or that the kernel offers no io_uring.
pub fn explore_for_real(from: u64, count: u64) -> Result<Figures, String> {
    explore_with(from, count, || {
        let other_side = OtherSide::begin().map_err(|error| format!("no other side: {error}"))?;
        Ok(move |program: &Program| run_for_real(program, &other_side))
    })
}

/// Runs programs with what `prepare` makes for each thread.
fn explore_with<F>(
    from: u64,
    count: u64,
    prepare: impl Fn() -> Result<F, String> + Sync,
) -> Result<Figures, String>
where
    F: Fn(&Program) -> Result<Figures, Vec<String>>,
{
    if let Some(seed) = std::env::var("RUMMEL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let program = Program::new(seed);
        return prepare()?(&program).map_err(|wrong| report(&program, &wrong));
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(from);
    let failed = AtomicBool::new(false);
    let all = Mutex::new((Figures::default(), None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut figures = Figures::default();
                let simulate = match prepare() {
                    Ok(simulate) => simulate,
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        all.lock().unwrap_or_else(|it| it.into_inner()).1 = Some(error);
                        return;
                    }
                };
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let program = Program::new(seed);
                    match watched(seed, || simulate(&program)) {
                        Ok(one) => figures.add(one),
                        Err(wrong) => {
                            failed.store(true, Ordering::Relaxed);
                            let seed = program.seed;
                            eprintln!("RUMMEL_SEED={seed} fails: {}", wrong.join("; "));
                            let smaller = std::env::var_os("RUMMEL_MUTANT").is_none();
                            let (program, wrong) =
                                if smaller { shrink(program, wrong, &simulate) } else { (program, wrong) };
                            all.lock().unwrap_or_else(|it| it.into_inner()).1 =
                                Some(report(&program, &wrong));
                        }
                    }
                }
                all.lock().unwrap_or_else(|it| it.into_inner()).0.add(figures);
            });
        }
    });
    let (figures, report) = all.into_inner().unwrap_or_else(|it| it.into_inner());
    match report {
        None => Ok(figures),
        Some(report) => Err(report),
    }
}

/// Ends the process if `work` does not end.
fn watched<T>(seed: u64, work: impl FnOnce() -> T) -> T {
    thread_local!(static WATCH: Arc<Watch> = Watch::begin());
    WATCH.with(|watch| {
        watch.seed.store(seed, Ordering::Relaxed);
        watch.count.fetch_add(1, Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(work));
        watch.count.fetch_add(1, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

struct Watch {
    seed: AtomicU64,
    /// Odd while a program runs.
    count: AtomicU64,
}

impl Watch {
    fn begin() -> Arc<Watch> {
        let watch = Arc::new(Watch { seed: AtomicU64::new(0), count: AtomicU64::new(0) });
        let watched = Arc::clone(&watch);
        let patience = std::env::var("RUMMEL_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
        let patience = Duration::from_secs(patience.unwrap_or(120));
        std::thread::spawn(move || {
            let mut last = 0;
            loop {
                std::thread::sleep(patience);
                let count = watched.count.load(Ordering::Relaxed);
                if count % 2 == 1 && count == last {
                    let seed = watched.seed.load(Ordering::Relaxed);
                    eprintln!("the program of seed {seed} hangs: RUMMEL_SEED={seed}");
                    std::process::abort();
                }
                last = count;
            }
        });
        watch
    }
}

/// Leaves out as much of a program as possible while it still fails.
fn shrink(
    mut program: Program,
    mut wrong: Vec<String>,
    simulate: &impl Fn(&Program) -> Result<Figures, Vec<String>>,
) -> (Program, Vec<String>) {
    let run = |candidate: &Program| watched(candidate.seed, || simulate(candidate));
    let mut smaller = |program: &mut Program, candidate: Program| match run(&candidate) {
        Ok(_) => false,
        Err(still) => {
            (*program, wrong) = (candidate, still);
            true
        }
    };
    loop {
        let before = program.clone();
        for index in (0..program.actions.len()).rev() {
            let mut candidate = program.clone();
            candidate.actions.remove(index);
            smaller(&mut program, candidate);
        }
        for index in 0..program.actions.len() {
            if let Action::Chain { links, .. } = &program.actions[index]
                && links.len() > 1
            {
                let mut candidate = program.clone();
                if let Action::Chain { links, .. } = &mut candidate.actions[index] {
                    links.pop();
                }
                smaller(&mut program, candidate);
            }
        }
        let same = program.faults;
        let candidates = [
            Program { twice: false, ..program.clone() },
            Program { late: 0, ..program.clone() },
            Program { backlog_limit: None, ..program.clone() },
            Program { request_limit: None, ..program.clone() },
            Program { neighbour: false, ..program.clone() },
            Program { places: None, ..program.clone() },
            Program { faults: Faults::none(), ..program.clone() },
            Program { faults: Faults { late: 0.0, lost_race: 0.0, ..same }, ..program.clone() },
            Program {
                faults: Faults { delay: 0.0, reorder: false, odd_ends: 0.0, ..same },
                ..program.clone()
            },
            Program { faults: Faults { cut: 0.0, no_buffers: 0.0, running: 0.0, ..same }, ..program.clone() },
            Program { faults: Faults { interrupt: 0.0, silent: 0.0, ..same }, ..program.clone() },
            Program { faults: Faults { busy: 0.0, partial: 0.0, foreign: 0.0, ..same }, ..program.clone() },
        ];
        for candidate in candidates {
            if candidate != program {
                smaller(&mut program, candidate);
            }
        }
        if program == before {
            return (program, wrong);
        }
    }
}

fn report(program: &Program, wrong: &[String]) -> String {
    let seed = program.seed;
    format!("RUMMEL_SEED={seed} fails:\n  {}\nmade smaller:\n{program}", wrong.join("\n  "))
}
