//! What the runner does with the contestants.

pub(crate) mod arena;
pub(crate) mod chart;
pub(crate) mod compile;
pub(crate) mod gate;
pub(crate) mod load;
pub(crate) mod report;
pub(crate) mod stats;
pub(crate) mod tables;

use arena::{Arena, CONTESTANTS};

/// Whatever went wrong.
pub(crate) type Error = Box<dyn std::error::Error>;

/// Prints the contestants and their works.
pub(crate) fn list(arena: &Arena) -> Result<bool, Error> {
    for contestant in CONTESTANTS.iter().filter(|contestant| contestant.is_somebody()) {
        match arena.build(contestant).and_then(|built| arena.works(&built)) {
            Ok(works) => println!("{}: {}", contestant.name, works.join(" ")),
            Err(error) => println!("{}: {error}", contestant.name),
        }
    }
    Ok(true)
}

/// Runs one work of one contestant and prints what it says.
pub(crate) fn one(arena: &Arena, name: &str, work: &str, args: &[String]) -> Result<bool, Error> {
    let known = CONTESTANTS.iter().find(|contestant| contestant.name == name);
    let contestant = known.ok_or_else(|| format!("there is no contestant `{name}`: see `list`"))?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    println!("{}", serde_json::to_string(&arena.run(&arena.build(contestant)?, work, &args)?)?);
    Ok(true)
}
