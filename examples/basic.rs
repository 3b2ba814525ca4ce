//! A timer on a ring: it ticks four times, and the ring ends while a fifth tick is in flight.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rummelplatz::{Completion, ControlFlow, Ring, RingOperation, Submitter, request, ring};

const TICKS: u32 = 4;

/// Ticks four times, then stops while the fifth tick is in flight.
#[derive(Parser)]
#[command(name = "basic", version)]
struct Arguments {
    /// The time between two ticks, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval_ms: u64,
}

#[ring]
struct Clock {
    ticker: Ticker,
}

/// An operation that works in any ring. The data of each request is the number of its tick.
#[derive(RingOperation)]
#[ring_operation(data = u32, error = io::Error, setup, on_completion, on_teardown_completion)]
struct Ticker {
    interval: Duration,
}

impl Ticker {
    fn setup<R: Ring>(&mut self, mut submitter: Submitter<'_, R, Self>) -> io::Result<()> {
        let interval = self.interval;
        submitter.submit(1, |_| request::timeout(interval))?;
        Ok(())
    }

    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        tick: u32,
        mut submitter: Submitter<'_, R, Self>,
    ) -> io::Result<ControlFlow> {
        completion.result()?;
        writeln!(io::stdout(), "tick {tick}")?;
        let interval = self.interval;
        submitter.submit(tick + 1, |_| request::timeout(interval))?;
        Ok(if tick == TICKS { ControlFlow::Exit } else { ControlFlow::Continue })
    }

    /// Called for each request that is in flight when the ring ends.
    fn on_teardown_completion<R: Ring>(
        &mut self,
        completion: Completion,
        tick: u32,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<()> {
        match completion.result() {
            Ok(_) => writeln!(io::stdout(), "tick {tick}, just before the end"),
            Err(error) => writeln!(io::stdout(), "tick {tick} was in flight: {error}"),
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let ticker = Ticker { interval: Duration::from_millis(arguments.interval_ms) };
    Clock::builder(ticker).build()?.run()?;
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("basic: {error}");
            ExitCode::FAILURE
        }
    }
}
