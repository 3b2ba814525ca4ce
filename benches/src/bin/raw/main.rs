//! The contestant `raw`: loops written by hand on the `io-uring` crate. It is the bar for the others.
//!
//! With `fast=1`, it runs on a ring with a registered descriptor and `NO_SQARRAY`.

mod pread;
mod ring;

use std::process::ExitCode;

use kit::by_hand;
use kit::{Args, Outcome};
use ring::Crate;

fn serve(args: &Args) -> Outcome {
    by_hand::serve::<Crate>("raw", args)
}

fn main() -> ExitCode {
    let mut works = by_hand::works::<Crate>();
    works.retain(|(name, _)| *name != "read");
    works.extend([("read", pread::read as kit::Work), ("serve", serve)]);
    kit::contest("raw", &works)
}
