//! Every form a handler may have, on structs and enums, for one ring and for any.

#![forbid(unsafe_code)]
#![deny(warnings)]

use std::convert::Infallible;
use std::{fmt, io};

use rummelplatz::{
    Completion, CompletionResult, ControlFlow, ResultExt, Ring, RingOperation, Submitter, ring,
};

#[ring]
struct All {
    nothing: Nothing,
    bare: Bare,
    unit: Unit,
    flow: Flow,
    data: Data,
    pair: Pair,
    warns: Warns,
    ends: Ends,
    chooses: Chooses,
    split: Split,
    split_fallible: SplitFallible,
    phases: Phases,
    renamed: Renamed,
    shared: Shared,
    choice: Choice,
    exits: Exits,
    exits_with_data: ExitsWithData,
    cannot_fail: CannotFail,
}

#[derive(RingOperation)]
struct Nothing;

#[derive(RingOperation)]
#[ring_operation]
struct Bare;

#[derive(RingOperation)]
#[ring_operation(on_completion)]
struct Unit;
impl Unit {
    fn on_completion<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
}

#[derive(RingOperation)]
#[ring_operation(ring = All, on_completion)]
struct Flow;
impl Flow {
    fn on_completion(
        &mut self,
        _: Completion,
        _: (),
        _: Submitter<'_, All, Self>,
    ) -> ControlFlow<Infallible, Infallible> {
        ControlFlow::Continue
    }
}

#[derive(RingOperation)]
#[ring_operation(data = String, on_completion)]
struct Data;
impl Data {
    fn on_completion(
        &mut self,
        _: Completion,
        data: String,
        _: Submitter<'_, impl Ring, Self>,
    ) -> Option<String> {
        Some(data)
    }
}

#[derive(RingOperation)]
#[ring_operation(data = String, warn = u8, error = u16, on_completion)]
struct Pair;
impl Pair {
    fn on_completion<R: Ring>(
        &mut self,
        _: Completion,
        data: String,
        _: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        (ControlFlow::Continue, Some(data))
    }
}

#[derive(RingOperation)]
#[ring_operation(data = String, warn = io::Error, on_completion)]
struct Warns;
impl Warns {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        data: String,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<Option<String>> {
        completion.result()?;
        Ok(Some(data))
    }
}

#[derive(RingOperation)]
#[ring_operation(error = Box<dyn std::error::Error + Send + Sync>, on_completion)]
struct Ends;
impl Ends {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        _: (),
        _: Submitter<'_, R, Self>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        completion.result()?;
        "5".parse::<u8>()?;
        Ok(())
    }
}

#[derive(RingOperation)]
#[ring_operation(warn = io::Error, error = Fatal, on_completion)]
struct Chooses;
struct Fatal;
impl From<fmt::Error> for Fatal {
    fn from(_: fmt::Error) -> Self {
        Fatal
    }
}
impl Chooses {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        _: (),
        _: Submitter<'_, R, Self>,
    ) -> Result<ControlFlow<io::Error, Fatal>, ControlFlow<io::Error, Fatal>> {
        completion.result().or_warn()?;
        fmt::Write::write_str(&mut String::new(), "x").or_end()?;
        Ok(ControlFlow::Exit)
    }
}

#[derive(RingOperation)]
#[ring_operation(error = io::Error, on_more, on_final)]
struct Exits;
impl Exits {
    fn on_more<R: Ring>(&mut self, _: Completion, _: &mut (), _: Submitter<'_, R, Self>) -> ControlFlow {
        ControlFlow::Continue
    }
    fn on_final<R: Ring>(
        &mut self,
        completion: Completion,
        _: (),
        _: Submitter<'_, R, Self>,
    ) -> io::Result<ControlFlow> {
        completion.result()?;
        Ok(ControlFlow::Exit)
    }
}

#[derive(RingOperation)]
#[ring_operation(data = u8, warn = io::Error, error = Fatal, on_completion)]
struct ExitsWithData;
impl ExitsWithData {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        data: u8,
        _: Submitter<'_, R, Self>,
    ) -> Result<(ControlFlow, Option<u8>), ControlFlow<io::Error, Fatal>> {
        completion.result().or_warn()?;
        Ok((ControlFlow::Exit, Some(data)))
    }
}

/// To declare that there are no errors is to declare nothing.
#[derive(RingOperation)]
#[ring_operation(warn = Infallible, error = std::convert::Infallible, on_completion)]
struct CannotFail;
impl CannotFail {
    fn on_completion<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) -> ControlFlow {
        ControlFlow::Continue
    }
}

#[derive(RingOperation)]
#[ring_operation(data = Vec<u8>, on_more, on_final)]
struct Split;
impl Split {
    fn on_more<R: Ring>(&mut self, _: Completion, data: &mut Vec<u8>, _: Submitter<'_, R, Self>) {
        data.push(1);
    }
    fn on_final<R: Ring>(&mut self, _: Completion, data: Vec<u8>, _: Submitter<'_, R, Self>) {
        drop(data);
    }
}

#[derive(RingOperation)]
#[ring_operation(data = Vec<u8>, warn = io::Error, on_more = more, on_final = last)]
struct SplitFallible;
impl SplitFallible {
    fn more<R: Ring>(
        &mut self,
        completion: Completion,
        _: &mut Vec<u8>,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<()> {
        completion.result().map(drop)
    }
    fn last<R: Ring>(
        &mut self,
        completion: Completion,
        _: Vec<u8>,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<ControlFlow<io::Error, Infallible>> {
        completion.result()?;
        Ok(ControlFlow::Continue)
    }
}

#[derive(RingOperation)]
#[ring_operation(error = String, setup_error = io::Error, teardown_error = (), setup, on_teardown_completion)]
struct Phases;
impl Phases {
    fn setup<R: Ring>(&mut self, _: Submitter<'_, R, Self>) -> io::Result<()> {
        Ok(())
    }
    fn on_teardown_completion<R: Ring>(
        &mut self,
        _: Completion,
        _: (),
        _: Submitter<'_, R, Self>,
    ) -> Result<(), ()> {
        Ok(())
    }
}

#[derive(RingOperation)]
#[ring_operation(setup = prepare, on_completion = handle, on_teardown_completion = r#final)]
struct Renamed;
impl Renamed {
    fn prepare<R: Ring>(&mut self, _: Submitter<'_, R, Self>) {}
    fn handle<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
    fn r#final<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
}

#[derive(RingOperation)]
#[ring_operation(setup, on_completion)]
struct Shared;
impl Shared {
    fn setup<R: Ring>(&self, _: Submitter<'_, R, Self>) {}
    fn on_completion<R: Ring>(&self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
}

#[derive(RingOperation)]
#[ring_operation(data = u8, on_completion)]
enum Choice {
    Yes { times: u8 },
    No,
}
impl Choice {
    fn on_completion<R: Ring>(&mut self, _: Completion, data: u8, _: Submitter<'_, R, Self>) {
        *self = if data == 0 { Choice::No } else { Choice::Yes { times: data } };
    }
}

fn main() {
    let Ok(raw) = All::new_raw_ring(std::num::NonZeroU32::MIN) else { return };
    let mut all = All::new(
        raw,
        None,
        Nothing,
        Bare,
        Unit,
        Flow,
        Data,
        Pair,
        Warns,
        Ends,
        Chooses,
        Split,
        SplitFallible,
        Phases,
        Renamed,
        Shared,
        Choice::No,
        Exits,
        ExitsWithData,
        CannotFail,
    );
    all.submitter(All::CHOICE).post(3).unwrap();
    all.run().unwrap();
    assert!(matches!(all.choice, Choice::Yes { times: 3 }));
}
