//! The long form: all that the contestants can do, in rounds, written to `docs/benchmarks`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::Error;
use super::arena::{Arena, Built, CONTESTANTS};
use super::chart;
use super::stats::{Ratio, quantile};

/// What is to be measured, and how long.
#[derive(Default)]
pub(crate) struct Options {
    quick: bool,
    only: Option<Vec<String>>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--only" => {
                    let pages = arguments.next().ok_or("--only: which pages?")?;
                    options.only = Some(pages.split(',').map(str::to_owned).collect());
                }
                other => return Err(format!("there is no option `{other}`").into()),
            }
        }
        Ok(options)
    }
}

/// One table: a work at one size.
struct Table {
    page: &'static str,
    work: &'static str,
    args: &'static [&'static str],
    /// What says how much is done: for a timed run, and for the shorter of two counted ones.
    size: (&'static str, u64, u64),
    /// What is compared: the window's wall time, or a figure of the contestant's own.
    figure: Option<&'static str>,
}

const fn table(
    page: &'static str,
    work: &'static str,
    args: &'static [&'static str],
    size: (&'static str, u64, u64),
) -> Table {
    Table { page, work, args, size, figure: None }
}

const fn echo(args: &'static [&'static str]) -> Table {
    Table { figure: Some("batch_ns_p10"), ..table("echo", "echo", args, ("batches", 250, 20)) }
}

const TABLES: &[Table] = &[
    table("nop", "nop", &["depth=128"], ("n", 1_500_000, 20_000)),
    table("nop", "nop", &["depth=32"], ("n", 1_500_000, 20_000)),
    table("nop", "nop", &["depth=1"], ("n", 400_000, 20_000)),
    table("read", "read", &["depth=32"], ("n", 250_000, 5_000)),
    table("read", "read", &["depth=1"], ("n", 80_000, 5_000)),
    table("read", "read", &["depth=32", "mode=fixed"], ("n", 250_000, 5_000)),
    table("read", "read", &["depth=32", "mode=direct"], ("n", 20_000, 2_000)),
    echo(&["shape=multishot", "conns=64", "size=1024"]),
    echo(&["shape=oneshot", "conns=64", "size=1024"]),
    echo(&["shape=multishot", "conns=64", "size=64"]),
    echo(&["shape=oneshot", "conns=64", "size=64"]),
    table("data", "data", &["size=8", "depth=32"], ("n", 1_000_000, 20_000)),
    table("data", "data", &["size=64", "depth=32"], ("n", 1_000_000, 20_000)),
    table("data", "data", &["size=256", "depth=32"], ("n", 1_000_000, 20_000)),
    table("data", "data", &["size=4096", "depth=32"], ("n", 200_000, 10_000)),
    table("neighbour", "neighbour", &["to=self", "depth=32"], ("n", 1_000_000, 20_000)),
    table("neighbour", "neighbour", &["to=other", "depth=32"], ("n", 1_000_000, 20_000)),
    table("teardown", "teardown", &["requests=1000"], ("rounds", 1, 1)),
    table("teardown", "teardown", &["requests=10000"], ("rounds", 1, 1)),
];

/// A contestant in one table.
struct Row {
    name: &'static str,
    figures: Vec<f64>,
    allocs: f64,
    instructions: Option<f64>,
}

/// Measures, and writes the pages.
pub(crate) fn report(arena: &Arena, options: &Options) -> Result<bool, Error> {
    let directory = arena.workspace().join("docs/benchmarks");
    fs::create_dir_all(&directory)?;
    let mut built = Vec::new();
    let mut absent = Vec::new();
    for contestant in CONTESTANTS {
        match arena.build(contestant) {
            Ok(one) => built.push((contestant.name, one)),
            Err(error) => absent.push(format!("{}: {error}", contestant.name)),
        }
    }
    let mut pages = Vec::<(&str, String)>::new();
    for (number, table) in TABLES.iter().enumerate() {
        if options.only.as_ref().is_some_and(|only| !only.iter().any(|page| page == table.page)) {
            continue;
        }
        let title = format!("{} {}", table.work, table.args.join(" "));
        eprintln!("{title}");
        let (rows, skipped) = measure(arena, table, &built, if options.quick { 5 } else { 9 });
        let text = write_table(&title, &rows, &skipped, &format!("{}-{number}", table.page));
        if let Some(bar) = rows.first() {
            let times = rows
                .iter()
                .map(|row| (row.name.to_owned(), Ratio::paired(&row.figures, &bar.figures).median));
            let path = directory.join(format!("{}-{number}.svg", table.page));
            chart::bars(&path, &format!("{title}: time, raw = 1"), " x", &times.collect::<Vec<_>>())?;
        }
        match pages.iter_mut().find(|(page, _)| *page == table.page) {
            Some((_, page)) => page.push_str(&text),
            None => pages.push((table.page, format!("# {}\n{text}", table.page))),
        }
    }
    for (page, text) in &pages {
        fs::write(directory.join(format!("{page}.md")), text)?;
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".md").filter(|name| *name != "README").map(str::to_owned));
    }
    names.sort();
    fs::write(directory.join("README.md"), index(&names, &absent, options))?;
    Ok(true)
}

/// Runs all who can, round by round, each round in another order.
fn measure(
    arena: &Arena,
    table: &Table,
    built: &[(&'static str, Built)],
    rounds: usize,
) -> (Vec<Row>, Vec<String>) {
    let (key, timed, counted) = table.size;
    let size = format!("{key}={timed}");
    let mut args = table.args.to_vec();
    args.push(&size);
    let mut skipped = Vec::new();
    let mut rows = Vec::new();
    let mut able = Vec::new();
    for (name, one) in built {
        // The first is to warm up.
        match arena.run(one, table.work, &args) {
            Ok(report) => {
                let counted = (counted > 1)
                    .then(|| arena.instructions(one, table.work, table.args, (key, counted)).ok())
                    .flatten();
                let allocs = report.allocs as f64 / report.n as f64;
                rows.push(Row { name, figures: Vec::new(), allocs, instructions: counted });
                able.push(one);
            }
            Err(error) => skipped.push(format!("{name}: {error}")),
        }
    }
    for round in 0..rounds {
        for place in 0..able.len() {
            let turn = (place + round) % able.len();
            // Who has run once and fails now has no figure for this round, nor has anybody else then.
            let figure = arena.run(able[turn], table.work, &args).map(|report| match table.figure {
                Some(name) => report.extra.get(name).copied().unwrap_or(f64::NAN),
                None => report.wall_ns as f64,
            });
            rows[turn].figures.push(figure.unwrap_or(f64::NAN));
        }
    }
    (rows, skipped)
}

fn write_table(title: &str, rows: &[Row], skipped: &[String], chart: &str) -> String {
    let mut text = format!("\n## {title}\n\n![time]({chart}.svg)\n\n");
    let Some(bar) = rows.first() else { return text + "Nobody could do it.\n" };
    text.push_str("| contestant | time, paired with the first | quartiles | quarter of rounds | instructions | allocations |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for row in rows {
        let ratio = Ratio::paired(&row.figures, &bar.figures);
        let quarter = quantile(&row.figures, 0.25) / quantile(&bar.figures, 0.25);
        let count = row.instructions.map_or("-".to_owned(), |count| format!("{count:.1}"));
        let (low, high) = ratio.quartiles;
        writeln!(
            text,
            "| {} | {:.2} | {low:.2}-{high:.2} | {quarter:.2} | {count} | {:.3} |",
            row.name, ratio.median, row.allocs
        )
        .ok();
    }
    let control = rows.iter().find(|row| row.name == "raw again");
    let control = control.map(|row| Ratio::paired(&row.figures, &bar.figures).median);
    if control.is_some_and(|ratio| !(0.97..=1.03).contains(&ratio)) {
        text.push_str("\n**Noisy**: raw is not as fast as itself, so these times say little.\n");
    }
    for line in skipped {
        writeln!(text, "\nNot in it: {line}").ok();
    }
    text
}

fn index(pages: &[String], absent: &[String], options: &Options) -> String {
    let mut text =
        "# Benchmarks\n\nWritten by the runner; see docs/performance.md for what they mean.\n\n".to_owned();
    let quick = if options.quick { " --quick" } else { "" };
    writeln!(text, "* command: `cargo run --release -p rummelplatz-bench -- report{quick}`").ok();
    for (name, command) in [
        ("kernel", "uname -r"),
        ("compiler", "rustc --version"),
        ("processor", "sed -n s/model.name.*:.//p /proc/cpuinfo"),
        ("date", "date -u +%F"),
    ] {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap_or_default()).args(words).output();
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let line = output.unwrap_or_default();
        writeln!(text, "* {name}: {}", line.lines().next().unwrap_or("unknown")).ok();
    }
    text.push_str("\nTimes are ratios to `raw` in the same round, their median and quartiles; instructions are those of\nuser space, per completion (callgrind); all are pinned to one CPU and take turns.\n\n");
    for page in pages {
        writeln!(text, "* [{page}]({page}.md)").ok();
    }
    for line in absent {
        writeln!(text, "\nNot built: {line}").ok();
    }
    text
}
