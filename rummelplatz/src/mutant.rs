//! Faults on purpose, to see whether the tests find them: build with `--cfg mutant`, and name one in
//! `RUMMEL_MUTANT`. Without that `cfg`, nothing of this is in what is built.

/// Whether this process has the fault of this name.
#[cfg(mutant)]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("RUMMEL_MUTANT").ok()).as_deref() == Some(name)
}

/// Never: this build has no faults on purpose.
#[cfg(not(mutant))]
#[inline(always)]
pub(crate) fn is(_: &str) -> bool {
    false
}
