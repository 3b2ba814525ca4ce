//! Faults on purpose, so that it is seen whether the tests find them: `--cfg mutant`, and the name of one
//! in `RUMMEL_MUTANT`. Without that, there is nothing of this in what is built.

/// Whether this process has the fault of this name.
#[cfg(mutant)]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("RUMMEL_MUTANT").ok()).as_deref() == Some(name)
}

/// No.
#[cfg(not(mutant))]
#[inline(always)]
pub(crate) fn is(_: &str) -> bool {
    false
}
