//! The README shows exactly what is tested.

#[test]
fn the_readme_shows_the_example_that_is_tested() {
    let readme = include_str!("../../README.md");
    let program = include_str!("../../examples/readme.rs");
    let (_, block) = readme.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```\n").unwrap();
    assert_eq!(block, program);
    assert!(program.lines().count() <= 40, "{} lines", program.lines().count());
}
