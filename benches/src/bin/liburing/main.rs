//! The contestant `liburing`: the same loops in C. Everything around them, including the client of the echo server, is
//! the same as for the other contestants.

use std::process::ExitCode;

#[cfg(not(has_liburing))]
fn main() -> ExitCode {
    eprintln!("liburing: {}", option_env!("NO_LIBURING").unwrap_or("built without its feature"));
    ExitCode::FAILURE
}

#[cfg(has_liburing)]
fn main() -> ExitCode {
    linked::main()
}

#[cfg(has_liburing)]
mod linked {
    use std::alloc::{Layout, alloc_zeroed};
    use std::ffi::{c_int, c_void};
    use std::io;
    use std::marker::PhantomData;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::process::ExitCode;

    use kit::echo::{self, Server, Shape};
    use kit::file::{self, BLOCK, Block, SIZE};
    use kit::{Args, Error, Outcome, Pace, skip};

    /// A pace: what is left of it, and the rest, which is passed to `bench_turn`.
    #[repr(C)]
    struct CPace<'a> {
        left: *mut u64,
        kit: *const c_void,
        of: PhantomData<&'a Pace>,
    }

    impl CPace<'_> {
        fn of(pace: &Pace) -> CPace<'_> {
            CPace { left: pace.left(), kit: (&raw const *pace).cast(), of: PhantomData }
        }
    }

    unsafe extern "C" {
        /// Both keep `depth` requests in flight, count the completions of each in `counters`, and return
        /// 0 or a negative `errno`.
        fn loop_nop(pace: *const CPace<'_>, depth: u32, counters: *mut u64) -> c_int;
        fn loop_read(
            pace: *const CPace<'_>,
            depth: u32,
            counters: *mut u64,
            fd: c_int,
            fixed: bool,
            blocks: *mut Block,
            count: u64,
        ) -> c_int;

        /// Serves until everything is over.
        fn loop_echo(
            listener: c_int,
            multishot: bool,
            conns: u32,
            buffer: u32,
            buffers: u32,
            alloc: extern "C" fn(usize, usize) -> *mut u8,
        ) -> c_int;
    }

    /// What the loops call when nothing of the pace is left.
    #[unsafe(no_mangle)]
    extern "C" fn bench_turn(pace: *const c_void) -> bool {
        // SAFETY: this is the `kit` of a `CPace`, which borrows the pace.
        unsafe { &*pace.cast::<Pace>() }.turn()
    }

    /// Zeroed memory that is never freed, from the counting allocator.
    extern "C" fn alloc(size: usize, align: usize) -> *mut u8 {
        match Layout::from_size_align(size, align) {
            // SAFETY: the size is not zero.
            Ok(layout) if size > 0 => unsafe { alloc_zeroed(layout) },
            _ => std::ptr::null_mut(),
        }
    }

    fn check(result: c_int) -> io::Result<()> {
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }

    fn nop(args: &Args) -> Outcome {
        let depth: usize = args.number("depth", 128)?;
        let pace = Pace::from_args(args, depth, 1_500_000)?;
        let mut counters = vec![0; depth];
        // SAFETY: there are `depth` counters.
        check(unsafe { loop_nop(&CPace::of(&pace), depth as u32, counters.as_mut_ptr()) })?;
        pace.finish(counters.iter().sum())
    }

    fn read(args: &Args) -> Outcome {
        let depth: usize = args.number("depth", 32)?;
        let fixed = match args.text("mode", "plain") {
            "plain" | "direct" => false,
            "fixed" | "direct-fixed" => true,
            other => return Err(skip(format!("no mode `{other}`"))),
        };
        let file = file::open(args)?;
        let pace = Pace::from_args(args, depth, 250_000)?;
        let (mut counters, mut blocks) = (vec![0; depth], vec![Block::default(); depth]);
        let count = SIZE / BLOCK as u64;
        // SAFETY: there are `depth` counters and blocks; all reads have ended when it returns 0. If it
        // does not, the memory is leaked.
        let result = unsafe {
            let (counters, blocks) = (counters.as_mut_ptr(), blocks.as_mut_ptr());
            loop_read(&CPace::of(&pace), depth as u32, counters, file.as_raw_fd(), fixed, blocks, count)
        };
        if let Err(error) = check(result) {
            std::mem::forget(blocks);
            return Err(error.into());
        }
        pace.finish(counters.iter().sum())
    }

    struct Liburing;

    impl Server for Liburing {
        const NAME: &'static str = "liburing";
        const SHAPES: &'static [&'static str] = &["multishot", "oneshot"];

        fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
            let Shape { multishot, conns, buffer, buffers, .. } = shape;
            let fd = listener.as_raw_fd();
            // SAFETY: the memory that it takes is never freed.
            let result =
                unsafe { loop_echo(fd, multishot, conns as u32, buffer as u32, buffers as u32, alloc) };
            Ok(check(result)?)
        }
    }

    pub(super) fn main() -> ExitCode {
        kit::contest(
            Liburing::NAME,
            &[
                ("nop", nop),
                ("read", read),
                ("echo", echo::alone::<Liburing>),
                ("serve", echo::loaded::<Liburing>),
            ],
        )
    }
}
