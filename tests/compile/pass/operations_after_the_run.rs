//! What the operations learned can be read, and moved out: the runtime ends before they do.

#![forbid(unsafe_code)]
#![deny(warnings)]

use rummelplatz::{Completion, ControlFlow, Ring, RingOperation, Submitter, ring};
use std::convert::Infallible;

#[ring]
struct Collect {
    left: Collector,
    right: Collector,
}

#[derive(RingOperation)]
#[ring_operation(data = String, on_completion)]
struct Collector {
    lines: Vec<String>,
}

impl Collector {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        line: String,
        _: Submitter<'_, R, Self>,
    ) -> ControlFlow<Infallible, Infallible> {
        assert!(completion.is_message());
        self.lines.push(line);
        ControlFlow::Continue
    }
}

fn main() {
    let Ok(raw) = Collect::new_raw_ring(std::num::NonZeroU32::MIN) else { return };
    let empty = || Collector { lines: Vec::new() };
    let mut collect = Collect::new(raw, None, empty(), empty());
    collect.submitter(Collect::LEFT).post("left".to_owned()).unwrap();
    collect.submitter(Collect::RIGHT).post("right".to_owned()).unwrap();
    collect.run().unwrap();
    assert_eq!(collect.left.lines, ["left"]);
    let Collect { left, right, .. } = collect;
    assert_eq!((left.lines, right.lines), (vec!["left".to_owned()], vec!["right".to_owned()]));
}
