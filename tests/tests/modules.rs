//! The modules of the library are as docs/design.md says: they import each other one way and without circles, and
//! `unsafe` is only in some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rummelplatz/src");
/// The section whose table has all modules, from the bottom.
const ROWS: &str = "Who may import whom";
const DESIGN: &str = include_str!("../../docs/design.md");

/// The modules in the table of a section of the design, row by row.
fn rows(section: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DESIGN.split_once(&format!("\n## {section}\n")).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let names = table.map_while(|line| line.strip_prefix("| `")?.split_once("` |"));
    names.map(|(names, _)| names.split("`, `").collect()).collect()
}

/// What a file belongs to: `queue` for `queue.rs` and for all in `queue/`.
fn module(file: &Path) -> String {
    let path = file.strip_prefix(SOURCES).unwrap();
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn add_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => add_files(&path, found),
            false => found.push(path),
        }
    }
}

/// The code of each module, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    add_files(Path::new(SOURCES), &mut files);
    let mut modules = BTreeMap::<_, String>::new();
    for file in files {
        let name = module(&file);
        if !["lib", "__private"].contains(&&*name) && file.file_name().unwrap() != "tests.rs" {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("\nmod tests {\n").next().unwrap();
            let lines = code.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//"));
            modules.entry(name).or_default().extend(lines);
        }
    }
    modules
}

/// Which modules each module imports, without itself.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let imports = |(name, code): (&String, &String)| {
        let paths = code.split("crate::").skip(1);
        let paths =
            paths.map(|path| path.split(|it: char| !it.is_alphanumeric() && it != '_').next().unwrap());
        let others = paths.filter(|import| import != name && modules.contains_key(*import));
        (name.clone(), others.map(str::to_owned).collect())
    };
    modules.iter().map(imports).collect()
}

#[test]
fn the_table_has_each_module_once() {
    let mut rows: Vec<_> = rows(ROWS).concat();
    rows.sort_unstable();
    assert_eq!(rows, graph().into_keys().collect::<Vec<_>>());
}

#[test]
fn nobody_imports_what_is_higher_up() {
    let rows = rows(ROWS);
    let row = |module: &str| rows.iter().position(|row| row.contains(&module));
    for (name, imports) in graph() {
        for import in imports {
            assert!(name == "sim" || row(&import) <= row(&name), "{name} imports {import}");
            assert!(import != "sim", "{name} imports the simulation");
        }
    }
}

#[test]
fn no_imports_go_round_in_a_circle() {
    let mut graph = graph();
    // Whoever imports nothing that is left is in no circle.
    while let Some(name) = graph.iter().find(|(_, imports)| imports.is_empty()).map(|(name, _)| name.clone())
    {
        graph.remove(&name);
        graph.values_mut().for_each(|imports| {
            imports.remove(&name);
        });
    }
    assert!(graph.is_empty(), "{graph:#?}");
}

#[test]
fn unsafe_is_only_where_the_design_says() {
    let is_unsafe =
        |code: &str| code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn");
    let found: BTreeSet<_> =
        modules().into_iter().filter(|(_, code)| is_unsafe(code)).map(|(name, _)| name).collect();
    let told: BTreeSet<_> = rows("Where `unsafe` is used").concat().into_iter().map(str::to_owned).collect();
    assert_eq!(found, told);
}
