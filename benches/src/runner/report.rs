//! The long form: everything that the contestants can do, in rounds, written to `docs/benchmarks`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kit::Report;

use super::arena::{Arena, Built, CONTESTANTS, Contestant};
use super::load::{Idle, Load, Loaded};
use super::stats::{Ratio, quantile};
use super::tables::{Kind, TABLES, Table};
use super::{Error, chart, compile, load};

/// What is to be measured, and how long.
#[derive(Default)]
pub(crate) struct Options {
    quick: bool,
    peers: bool,
    only: Option<Vec<String>>,
    command: String,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, Error> {
        let mut options = Options { command: arguments.join(" "), ..Options::default() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--peers" => options.peers = true,
                "--only" => {
                    let pages = arguments.next().ok_or("--only: which pages?")?;
                    let pages: Vec<String> = pages.split(',').map(str::to_owned).collect();
                    let unknown = |page: &&String| !TABLES.iter().any(|table| table.page == page.as_str());
                    if let Some(page) = pages.iter().find(unknown) {
                        return Err(format!("there is no page `{page}`").into());
                    }
                    options.only = Some(pages);
                }
                other => return Err(format!("there is no option `{other}`").into()),
            }
        }
        Ok(options)
    }

    fn rounds(&self, table: &Table) -> usize {
        match (self.quick, table.kind) {
            (true, _) => 3,
            (false, Kind::Loaded) => 3,
            (false, _) => 7,
        }
    }
}

/// How long measuring may take before noisy tables are no longer measured again.
const PATIENCE: Duration = Duration::from_secs(6 * 60);

/// How often a noisy table is measured at most.
const ATTEMPTS: usize = 3;

/// How many quiet connections there are.
const IDLE: usize = 10_000;

/// A contestant that can't run, and why.
type Absent = (&'static Contestant, String);

/// What a contestant did in the rounds of one table.
struct Row<'a> {
    built: &'a Built,
    /// What is compared: for each round a figure, or nothing.
    figures: Vec<f64>,
    /// Of the same rounds: the figure with the client; requests per second.
    beside: Vec<f64>,
    /// Why it failed, in the rounds in which it did.
    failed: Vec<String>,
    /// CPU time for each completion.
    cpu: Vec<f64>,
    allocs: f64,
    bytes: f64,
    instructions: Option<f64>,
    system_calls: Option<f64>,
    latencies: Option<Histogram<u64>>,
}

impl<'a> Row<'a> {
    fn new(built: &'a Built) -> Row<'a> {
        Row {
            built,
            figures: Vec::new(),
            beside: Vec::new(),
            failed: Vec::new(),
            cpu: Vec::new(),
            allocs: 0.0,
            bytes: 0.0,
            instructions: None,
            system_calls: None,
            latencies: None,
        }
    }

    /// Adds a round: if a contestant fails in it, it has no figures there.
    fn add(&mut self, table: &Table, round: Result<Round, Error>) {
        match round {
            Ok(Round::Ran(report)) => {
                let n = report.n as f64;
                let extra = |name: &str| report.extra.get(name).copied().unwrap_or(f64::NAN);
                let conns = argument(table, "conns").unwrap_or(1.0);
                let (figure, beside) = match table.kind {
                    Kind::Batches => (extra("batch_ns_p10") / conns, extra("total_ns_p10") / conns),
                    _ => (report.wall_ns as f64 / n, f64::NAN),
                };
                self.figures.push(figure);
                self.beside.push(beside);
                self.cpu.push(report.cpu_ns as f64 / n);
                (self.allocs, self.bytes) = (report.allocs as f64 / n, report.bytes as f64 / n);
            }
            Ok(Round::Loaded(loaded)) => {
                let n = loaded.requests as f64;
                self.figures.push(loaded.cpu_ns as f64 / n);
                self.beside.push(1e9 * n / loaded.wall_ns as f64);
                self.cpu.push(loaded.cpu_ns as f64 / n);
                (self.allocs, self.bytes) = (loaded.allocs as f64 / n, loaded.bytes as f64 / n);
                match &mut self.latencies {
                    Some(all) => drop(all.add(loaded.latencies)),
                    none => *none = Some(loaded.latencies),
                }
            }
            Err(error) => {
                eprintln!("  {}: {error}", self.built.name);
                self.figures.push(f64::NAN);
                self.beside.push(f64::NAN);
                self.failed.push(error.to_string());
            }
        }
    }

    fn forget(&mut self) {
        *self =
            Row { instructions: self.instructions, system_calls: self.system_calls, ..Row::new(self.built) };
    }
}

/// The figures of one run.
enum Round {
    Ran(Report),
    Loaded(Box<Loaded>),
}

/// The value of one of the table's arguments.
fn argument(table: &Table, key: &str) -> Option<f64> {
    let mut pairs = table.args.iter().filter_map(|argument| argument.split_once('='));
    pairs.find(|(name, _)| *name == key)?.1.parse().ok()
}

/// Measures, and writes the pages.
pub(crate) fn report(arena: &Arena, options: &Options) -> Result<bool, Error> {
    let directory = arena.workspace().join("docs/benchmarks");
    fs::create_dir_all(&directory)?;
    let mut built = Vec::new();
    let mut absent = Vec::new();
    if options.peers {
        eprintln!("building all together");
        arena.build_with_peers();
    }
    for contestant in CONTESTANTS.iter().filter(|it| options.peers || !it.is_peer()) {
        eprintln!("building {}", contestant.name);
        match arena.build(contestant) {
            Ok(one) => built.push(one),
            Err(error) => absent.push((contestant, error.to_string())),
        }
    }
    let begin = Instant::now();
    let circumstances = circumstances(options);
    let mut page = String::new();
    for (number, table) in TABLES.iter().enumerate() {
        if options.only.as_ref().is_some_and(|only| !only.iter().any(|page| page == table.page)) {
            continue;
        }
        eprintln!("{:4} s  {}: {}", begin.elapsed().as_secs(), table.page, table.title);
        let chart = format!("{}-{}", table.page, table.name);
        let path = directory.join(format!("{chart}.svg"));
        let text = match table.kind {
            Kind::Timed | Kind::Batches | Kind::Loaded => {
                let (rows, skipped, noisy) = measure(arena, options, table, &built, begin);
                draw(&path, table, &rows)?;
                let note = if noisy { NOISY } else { "" };
                rows_table(table, &rows) + note + &failed_in(&rows) + &not_in_it(&absent, table, skipped)
            }
            Kind::Idle => idle_table(arena, table, &built, &absent, &path)?,
            Kind::Compiled => compile_table(arena, if options.quick { 1 } else { 3 }, &path)?,
        };
        write!(page, "\n## {}\n\n![{}]({chart}.svg)\n\n{text}", table.title, table.title)?;
        if TABLES.get(number + 1).is_none_or(|next| next.page != table.page) {
            let about = format!("\n---\n\n[What the columns are](README.md#columns)\n\n{circumstances}");
            let text = format!("# {}\n{page}{about}", table.page);
            fs::write(directory.join(format!("{}.md", table.page)), text)?;
            page.clear();
        }
    }
    fs::write(directory.join("README.md"), index(&directory, &absent, options, &circumstances)?)?;
    eprintln!("{:4} s", begin.elapsed().as_secs());
    Ok(true)
}

const NOISY: &str = "\n**Noisy**: the first is not as fast as itself, so these times say little.\n";

/// Runs all contestants that can, round by round, each round in another order; and again, if the first was not as fast
/// as itself.
fn measure<'a>(
    arena: &Arena,
    options: &Options,
    table: &Table,
    built: &'a [Built],
    begin: Instant,
) -> (Vec<Row<'a>>, Vec<(&'static str, String)>, bool) {
    let mut skipped = Vec::new();
    let mut rows = Vec::new();
    for one in built.iter().filter(|one| one.contestant.is_for(table.args)) {
        // The first round is to warm up.
        if let Err(error) = run(arena, options, table, one) {
            skipped.push((one.name, error.to_string()));
            continue;
        }
        let mut row = Row::new(one);
        if table.instructions > 0 {
            let size = (table.key, table.instructions);
            row.instructions = counted(arena.instructions(one, table.work, table.args, size));
        }
        if table.system_calls > 0 {
            let size = (table.key, table.system_calls);
            row.system_calls = counted(arena.system_calls(one, table.work, table.args, size));
        }
        rows.push(row);
    }
    for attempt in 1..=ATTEMPTS {
        rows.iter_mut().for_each(Row::forget);
        for round in 0..options.rounds(table) {
            for place in 0..rows.len() {
                let turn = (place + round) % rows.len();
                let outcome = run(arena, options, table, rows[turn].built);
                rows[turn].add(table, outcome);
            }
        }
        if !is_noisy(&rows) {
            return (rows, skipped, false);
        }
        if attempt == ATTEMPTS || options.quick || begin.elapsed() > PATIENCE {
            break;
        }
        eprintln!("  noisy: again");
    }
    (rows, skipped, true)
}

fn run(arena: &Arena, options: &Options, table: &Table, built: &Built) -> Result<Round, Error> {
    if table.kind == Kind::Loaded {
        let millis = Duration::from_millis;
        let (warm, window) = if options.quick { (50, 150) } else { (100, 300) };
        let figure = |key| argument(table, key).ok_or("no such argument").map(|figure| figure as usize);
        let (conns, size) = (figure("conns")?, figure("size")?);
        let load = Load { conns, size, warm: millis(warm), window: millis(window) };
        return Ok(Round::Loaded(Box::new(load::load(arena, built, table.args, load)?)));
    }
    let timed = if options.quick { table.timed.div_ceil(5) } else { table.timed };
    let size = format!("{}={timed}", table.key);
    let args: Vec<&str> = table.args.iter().copied().chain([size.as_str()]).collect();
    Ok(Round::Ran(arena.run(built, table.work, &args)?))
}

fn counted(figure: Result<f64, Error>) -> Option<f64> {
    figure.map_err(|error| eprintln!("  not counted: {error}")).ok()
}

/// Whether the first contestant and the same once more differ by more than three hundredths.
fn is_noisy(rows: &[Row<'_>]) -> bool {
    let again = rows.iter().skip(1).find(|row| row.built.contestant.is_again);
    let (Some(again), Some(bar)) = (again, rows.first()) else { return false };
    !(0.97..=1.03).contains(&Ratio::paired(&again.figures, &bar.figures).median)
}

fn draw(path: &Path, table: &Table, rows: &[Row<'_>]) -> Result<(), Error> {
    let Some(bar) = rows.first() else { return Ok(()) };
    let ratio = |row: &Row<'_>| {
        let name = row.built.name.to_owned();
        (name, Ratio::paired(&row.figures, &bar.figures).median)
    };
    let what = if table.kind == Kind::Loaded { "CPU time" } else { "time" };
    let title = format!("{}: {what}, {} = 1", table.title.replace('`', ""), bar.built.name);
    chart::bars(path, &title, 2, " x", Some(1.0), &rows.iter().map(ratio).collect::<Vec<_>>())
}

/// A table of Markdown.
fn markdown(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).ok();
    }
    text
}

fn rows_table(table: &Table, rows: &[Row<'_>]) -> String {
    let Some(bar) = rows.first() else { return "Nobody could do it.\n".to_owned() };
    let count =
        |figure: Option<f64>, places: usize| figure.map_or("-".to_owned(), |it| format!("{it:.places$}"));
    let ratio = |row: &Row<'_>| {
        let ratio = Ratio::paired(&row.figures, &bar.figures);
        let (low, high) = ratio.quartiles;
        let quarter = quantile(&row.figures, 0.25) / quantile(&bar.figures, 0.25);
        let name = row.built.name.to_owned();
        [name, format!("{:.2}", ratio.median), format!("{low:.2}-{high:.2}"), format!("{quarter:.2}")]
    };
    let heap = |row: &Row<'_>| [format!("{:.3}", row.allocs), format!("{:.0}", row.bytes)];
    let counts = |row: &Row<'_>| [count(row.instructions, 1), count(row.system_calls, 3)];
    match table.kind {
        Kind::Loaded => markdown(
            &[
                "contestant",
                "CPU time",
                "quartiles",
                "lower quartile",
                "CPU ns",
                "requests/s",
                "p50 µs",
                "p90 µs",
                "p99 µs",
                "p99.9 µs",
                "allocations",
                "bytes",
            ],
            rows.iter().map(|row| {
                let latency = |part| {
                    let all = row.latencies.as_ref();
                    let micros = all.map(|all| all.value_at_quantile(part) as f64 / 1e3);
                    count(micros, 0)
                };
                let times =
                    [format!("{:.0}", quantile(&row.cpu, 0.5)), format!("{:.0}", quantile(&row.beside, 0.5))];
                let latencies = [latency(0.5), latency(0.9), latency(0.99), latency(0.999)];
                [&ratio(row)[..], &times, &latencies, &heap(row)].concat()
            }),
        ),
        Kind::Batches => markdown(
            &[
                "contestant",
                "server's time",
                "quartiles",
                "lower quartile",
                "with the client",
                "server's ns",
                "instructions",
                "system calls",
                "allocations",
                "bytes",
            ],
            rows.iter().map(|row| {
                let times = [
                    format!("{:.2}", Ratio::paired(&row.beside, &bar.beside).median),
                    format!("{:.0}", quantile(&row.figures, 0.5)),
                ];
                [&ratio(row)[..], &times, &counts(row), &heap(row)].concat()
            }),
        ),
        _ => markdown(
            &[
                "contestant",
                "time",
                "quartiles",
                "lower quartile",
                "CPU ns",
                "instructions",
                "system calls",
                "allocations",
                "bytes",
            ],
            rows.iter().map(|row| {
                let times = [format!("{:.1}", quantile(&row.cpu, 0.5))];
                [&ratio(row)[..], &times, &counts(row), &heap(row)].concat()
            }),
        ),
    }
}

/// The contestants that can run, but did not in all rounds of a table, and why.
fn failed_in(rows: &[Row<'_>]) -> String {
    let lines = rows.iter().filter_map(|Row { built, figures, failed, .. }| {
        let (rounds, of, why) = (failed.len(), figures.len(), failed.last()?);
        Some(format!("\n{} failed in {rounds} of {of} rounds ({why})\n", built.name))
    });
    lines.collect()
}

/// The contestants that are missing from a table, one line for each reason.
fn not_in_it(absent: &[Absent], table: &Table, skipped: Vec<(&'static str, String)>) -> String {
    let absent = absent.iter().filter(|(contestant, _)| contestant.is_for(table.args));
    let absent = absent.map(|(contestant, reason)| (contestant.name, reason.clone()));
    let mut reasons = Vec::<(String, Vec<&str>)>::new();
    for (name, reason) in skipped.into_iter().chain(absent) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let lines =
        reasons.iter().map(|(reason, names)| format!("\nNot in it: {} ({reason})\n", names.join(", ")));
    lines.collect()
}

/// Rows with the memory of a quiet connection. It is counted, so there are no rounds.
fn idle_table(
    arena: &Arena,
    table: &Table,
    built: &[Built],
    absent: &[Absent],
    path: &Path,
) -> Result<String, Error> {
    let (mut rows, mut bars, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let once = |one: &&Built| one.contestant.is_for(table.args) && !one.contestant.is_again;
    for one in built.iter().filter(once) {
        match load::idle(arena, one, table.args, IDLE) {
            Ok(Idle { heap_bytes, resident_bytes }) => {
                let figures = [heap_bytes, resident_bytes].map(|bytes| format!("{bytes:.0}"));
                rows.push([&[one.name.to_owned()][..], &figures].concat());
                bars.push((one.name.to_owned(), resident_bytes.max(0.0)));
            }
            Err(error) => skipped.push((one.name, error.to_string())),
        }
    }
    chart::bars(path, "resident bytes of a quiet connection", 0, " B", None, &bars)?;
    Ok(markdown(&["contestant", "heap bytes", "resident bytes"], rows) + &not_in_it(absent, table, skipped))
}

/// Rows with the seconds that rings take to compile.
fn compile_table(arena: &Arena, times: usize, path: &Path) -> Result<String, Error> {
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    let mut first = None;
    for operations in compile::OPERATIONS {
        let seconds = compile::seconds(arena, *operations, times)?;
        let first = first.get_or_insert_with(|| seconds.clone());
        let mut row = vec![operations.to_string()];
        for (((way, _), seconds), first) in compile::WAYS.iter().zip(&seconds).zip(&*first) {
            row.push(format!("{seconds:.2} ({:+.2})", seconds - first));
            bars.push((*way, format!("{way}, {operations}"), *seconds));
        }
        rows.push(row);
    }
    bars.sort_by_key(|(way, ..)| *way);
    let bars: Vec<_> = bars.into_iter().map(|(_, label, seconds)| (label, seconds)).collect();
    chart::bars(path, "seconds to compile a ring of so many operations", 2, " s", None, &bars)?;
    let head: Vec<String> =
        compile::WAYS.iter().map(|(_, args)| format!("`cargo {}`", args.join(" "))).collect();
    let head: Vec<&str> = ["operations"].into_iter().chain(head.iter().map(String::as_str)).collect();
    Ok(markdown(&head, rows) + COMPILED)
}

const COMPILED: &str = "
Of the program alone, which is one file; what it depends on has been compiled before. In brackets, how much
more than the ring of one operation. Each operation is a type with handlers of its own.
";

const RINGS: &str = "\
`COOP_TASKRUN`, `SINGLE_ISSUER`, `DEFER_TASKRUN`, where they can be had. `raw fast`, `floor`, `liburing`,
  `rummelplatz` and `derived` also have a registered ring descriptor, and these and `agave-io-uring` have
  `NO_SQARRAY` (`liburing` if its version sets it). `raw` and the others have neither";

/// Where and how it was measured.
fn circumstances(options: &Options) -> String {
    let output = |command: &str| {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap_or_default()).args(words).output();
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        output.unwrap_or_default().lines().next().unwrap_or("unknown").trim().to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = String::new();
    for (name, value) in [
        ("command", format!("`cargo run --release -p rummelplatz-bench -- report {}`", options.command)),
        ("kernel", output("uname -r")),
        ("processor", format!("{}, {cpus} of them", output("sed -n s/model.name.*:.//p /proc/cpuinfo"))),
        ("mitigations", output("cat /sys/devices/system/cpu/vulnerabilities/spectre_v2")),
        ("compilers", format!("{}; {}", output("rustc --version"), output("gcc --version"))),
        ("flags", "profile `contest`: release, fat LTO, one codegen unit; C with `-O3`".to_owned()),
        ("rings", RINGS.to_owned()),
        ("date", output("date -u +%F")),
    ] {
        writeln!(text, "* {name}: {value}").ok();
    }
    text
}

const COLUMNS: &str = "
## Columns

Contestants take turns, in an order that changes from round to round, each pinned to the same CPU. `raw
again` is `raw` once more (where the first is another, it is that one): as far as its ratio is from 1.00, so
far do times mean nothing. When it is more than 0.03, all are measured again, up to three times; if that did
not help, the table says so.

* **time**, **server's time**, **CPU time**: a ratio to the first in the same round, the median of all rounds,
  and their **quartiles**. For an echo in one thread it is the tenth percentile of the batches, from the
  client's last send to the server's last. Over two cores it is the CPU time of the server for each request.
* **lower quartile**: that of all rounds, as a ratio to that of the first. Where it is not near the first
  column, the rounds were disturbed.
* **with the client**: as above, from batch to batch.
* **CPU ns**, **server's ns**: nanoseconds for each completion, request or connection; a median.
* **instructions**: of user space, for each completion or request; counted by callgrind, as the difference
  of a run and one three times as long. The client is left out.
* **system calls**: for each completion or request, counted by strace in the same way. The client is left
  out. `-`: not counted.
* **allocations**, **bytes**: asked of the allocator in the steady state, for each completion or request.
* **requests/s**, **p50** to **p99.9**: by the client on the other core, which keeps one message under way on
  each connection and verifies every byte; of all rounds.
* **heap bytes**, **resident bytes**: for each quiet connection; allocated and not freed, and what the
  process has grown by. What was allocated ahead, for as many as there will be, is in the second only.
";

const CONTESTANTS_ARE: &str = "
## Contestants

`raw`: loops written by hand on the `io-uring` crate; `raw fast`: with a registered ring descriptor and
`NO_SQARRAY`; `floor`: the same loops on queues of their own; `liburing`: the same loops in C; `pread`: the
system call, in a loop; `boxed`: a box for each request, as the library did that rummelplatz was made after;
`derived`: rummelplatz with `#[derive(RingOperation)]`. On the page neighbour, all are rummelplatz; on the
page deadline, a NOP by hand is one whose linked timer has completed, too; rummelplatz keeps deadlines itself.
On the page teardown, each request is cancelled by its `user_data`, the oldest first; `newest first` is
`raw` that begins with the newest, as rummelplatz does, and `one cancel with ANY` is `raw` with
`IORING_ASYNC_CANCEL_ANY`. On the page trades, nearly all are `raw`, which does one thing otherwise: `fixed
files` accepts into the ring's table of files; `poll first` has receives wait before they try; `zero copy`
sends by `SEND_ZC`; `bundles` gets several buffers by one completion, and so does rummelplatz there
(`recv_multi_bundle`); `incremental` has buffers of 64 KiB that are used up piece by piece; `min wait` waits
for eight completions or 50 µs; `sqpoll` has a thread of the kernel's look for entries, on the same CPU. The
others are the libraries of those names.
";

fn index(
    directory: &Path,
    absent: &[Absent],
    options: &Options,
    circumstances: &str,
) -> Result<String, Error> {
    let mut text =
        "# Benchmarks\n\nWritten by the runner; see [performance](../performance.md) for what they mean. Each page says when and where\nit was measured; this one:\n\n".to_owned();
    text.push_str(circumstances);
    text.push('\n');
    let mut pages = Vec::new();
    for table in TABLES {
        if !pages.contains(&table.page) && directory.join(format!("{}.md", table.page)).exists() {
            pages.push(table.page);
        }
    }
    for page in pages {
        writeln!(text, "* [{page}]({page}.md)").ok();
    }
    text.push_str(CONTESTANTS_ARE);
    for (contestant, reason) in absent {
        writeln!(text, "\nCannot run: {} ({reason})", contestant.name).ok();
    }
    if !options.peers {
        text.push_str("\nPeers were not asked for (`--peers`).\n");
    }
    text.push_str(COLUMNS);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn whoever_is_not_in_a_table_is_named_below_it() {
        let find = |name: &str| CONTESTANTS.iter().find(|it| it.name == name).unwrap();
        let reason = "cargo build: error: no linker";
        let absent = [(find("mio"), reason.to_owned()), (find("tokio"), reason.to_owned())];
        let skipped = vec![("glommio", "exit status: 3".to_owned())];
        let table = TABLES.iter().find(|table| find("mio").is_for(table.args)).unwrap();
        let expected = "\nNot in it: glommio (exit status: 3)\n\nNot in it: mio, tokio (cargo build: error: no linker)\n";
        assert_eq!(not_in_it(&absent, table, skipped), expected);
        let trade = TABLES.iter().find(|table| table.page == "trades").unwrap();
        assert_eq!(not_in_it(&absent, trade, Vec::new()), "");
    }

    #[test]
    fn rounds_that_fail_are_no_figures() {
        let built = Built::at(PathBuf::new(), &CONTESTANTS[0]);
        let mut row = Row::new(&built);
        row.figures.push(1.0);
        row.add(&TABLES[0], Err("no ring".into()));
        assert_eq!(failed_in(&[row]), "\nraw failed in 1 of 2 rounds (no ring)\n");
    }
}
