//! Reads of 64 bytes from `/dev/zero`: into a buffer of the request's own, and into one of a pool.

use std::fs::File;
use std::sync::Arc;

use kit::{Args, Error, Outcome, Report, Window};
use rummelplatz::{BufferPool, Completion, Request, RingOperation, Submitter, request, ring};

const SIZE: usize = 64;

#[ring]
struct Bench<const PROVIDED: bool> {
    reads: Reads<PROVIDED>,
}

#[derive(RingOperation)]
#[ring_operation(ring = Bench<PROVIDED>, data = Read, error = Error, on_completion)]
struct Reads<const PROVIDED: bool> {
    left: u64,
    total: u64,
}

struct Read {
    file: Arc<File>,
    pool: BufferPool,
    buffer: Box<[u8]>,
    count: u64,
}

impl<const PROVIDED: bool> Reads<PROVIDED> {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut read: Read,
        mut submitter: Submitter<'_, Bench<PROVIDED>, Self>,
    ) -> Result<(), Error> {
        let length = match PROVIDED {
            true => completion.into_buffer()?.len(),
            false => completion.result()? as usize,
        };
        if length != SIZE {
            return Err("short".into());
        }
        read.count += 1;
        if self.left == 0 {
            self.total += read.count;
        } else {
            self.left -= 1;
            submitter.submit(read, Read::request::<PROVIDED>)?;
        }
        Ok(())
    }
}

impl Read {
    fn request<const PROVIDED: bool>(&mut self) -> Request<'_> {
        match PROVIDED {
            true => request::read_provided(&self.file, &self.pool),
            false => request::read(&self.file, &mut self.buffer),
        }
    }
}

/// Reads into buffers of a pool if `PROVIDED` is set.
pub(crate) fn read<const PROVIDED: bool>(args: &Args) -> Outcome {
    let (n, depth, entries) = crate::sizes(args)?;
    let file = Arc::new(File::open("/dev/zero")?);
    let pool = BufferPool::new(u16::try_from(depth)?, SIZE as u32)?;
    let mut bench = Bench::<PROVIDED>::builder(Reads { left: n, total: 0 }).entries(entries).build()?;
    for _ in 0..depth {
        bench.reads.left -= 1;
        let (file, pool) = (Arc::clone(&file), pool.clone());
        let read = Read { file, pool, buffer: vec![0; SIZE].into(), count: 0 };
        bench.submitter(Bench::READS).submit(read, Read::request::<PROVIDED>)?;
    }
    let window = Window::open();
    bench.run()?;
    Ok(Report { check: bench.reads.total, ..window.close(n, 0) })
}
