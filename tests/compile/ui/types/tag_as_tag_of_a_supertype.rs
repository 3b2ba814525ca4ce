use rummelplatz::{Ring, RingOperation, Tag, ring};

#[ring]
struct Server {
    reader: Reader,
    timer: Timer,
}

#[derive(RingOperation)]
struct Timer;

#[derive(Default, RingOperation)]
struct Reader;

#[derive(RingOperation)]
struct Prints<F>(F);

type ForAll = for<'a> fn(&'a str);
type ForStatic = fn(&'static str);

fn weaken<R: Ring>(tag: Tag<R, Prints<ForAll>>) -> Tag<R, Prints<ForStatic>> {
    tag
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader, Timer).run().unwrap();
    let _ = weaken::<Server>;
}
