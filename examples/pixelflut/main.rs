//! Pixelflut: a picture that everybody may paint, pixel by pixel. This is a server, and a client that draws a picture.
//!
//! ```text
//! pixelflut serve 127.0.0.1:1234 --image canvas.ppm
//! pixelflut draw 127.0.0.1:1234 picture.ppm --connections 8
//! ```
//!
//! The protocol is one of lines, of which a client may send as many as it likes without waiting for an answer:
//!
//! ```text
//! PX 23 42 ff8000     paints a pixel; with two more digits, as thick as these say
//! PX 23 42            asks for it: PX 23 42 ff8000
//! SIZE                asks for the size: SIZE 800 600
//! OFFSET 100 100      adds this to all later coordinates of this connection
//! HELP                asks for this list
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod canvas;
mod client;
mod protocol;
mod server;
#[path = "../signals.rs"]
mod signals;
#[cfg(all(test, feature = "sim"))]
mod tests;

/// A server of Pixelflut, and a client.
#[derive(Parser)]
#[command(name = "pixelflut", version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Lets everybody paint. Stops on SIGINT and SIGTERM.
    Serve(ServeArguments),
    /// Draws a picture, and ends when the server has all of it.
    Draw(DrawArguments),
}

#[derive(clap::Args)]
struct ServeArguments {
    /// The address to listen at; with port 0, any port that is free.
    #[arg(default_value = "127.0.0.1:1234")]
    address: SocketAddr,
    /// How many pixels there are in a row, at most 10000.
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    width: u32,
    /// How many rows there are, at most 10000.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    height: u32,
    /// Where to write the picture when the server stops, as a PPM file.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Tells of connections that end with an error.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(clap::Args)]
struct DrawArguments {
    /// The address of the server.
    server: SocketAddr,
    /// The picture, a PPM file (P6, with 255 shades).
    image: PathBuf,
    /// Where the left edge goes.
    #[arg(long, default_value_t = 0)]
    x: u32,
    /// Where the upper edge goes.
    #[arg(long, default_value_t = 0)]
    y: u32,
    /// How many connections share the work, at most 1000.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// How often the picture is drawn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Tells each second how fast it goes.
    #[arg(short, long)]
    verbose: bool,
}

/// Writes to standard error, and does not fail if nobody reads it.
fn report(message: impl Display) {
    writeln!(io::stderr(), "pixelflut: {message}").ok();
}

fn main() -> ExitCode {
    let result: Result<(), Box<dyn Error>> = match &Arguments::parse().role {
        Role::Serve(arguments) => server::serve(arguments),
        Role::Draw(arguments) => client::draw(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error);
            ExitCode::FAILURE
        }
    }
}
