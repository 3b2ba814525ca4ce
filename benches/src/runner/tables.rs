//! What the report measures.

/// What is measured for a table, and how.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// A steady state, timed.
    Timed,
    /// An echo server with the client in its own thread; the figure is the server's part.
    Batches,
    /// An echo server, with the client on the other core.
    Loaded,
    /// An echo server, with quiet connections.
    Idle,
    /// A program that is compiled.
    Compiled,
}

/// One table: a work at one size.
pub(crate) struct Table {
    pub(crate) page: &'static str,
    /// The name of its file is the page's name followed by this.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) work: &'static str,
    pub(crate) args: &'static [&'static str],
    /// The argument that says how much is done. Then its value in a timed run, and in the shorter of two runs in which
    /// instructions are counted, or system calls; 0 for none.
    pub(crate) key: &'static str,
    pub(crate) timed: u64,
    pub(crate) instructions: u64,
    pub(crate) system_calls: u64,
}

const BASE: Table = Table {
    page: "",
    name: "",
    title: "",
    kind: Kind::Timed,
    work: "",
    args: &[],
    key: "n",
    timed: 1,
    instructions: 0,
    system_calls: 0,
};

const NOP: Table =
    Table { page: "nop", work: "nop", timed: 1_000_000, instructions: 20_000, system_calls: 20_000, ..BASE };
const READ: Table =
    Table { page: "read", work: "read", timed: 100_000, instructions: 5_000, system_calls: 5_000, ..BASE };
const ECHO: Table =
    Table { page: "echo", work: "echo", kind: Kind::Batches, key: "batches", timed: 250, ..BASE };
const LOADED: Table = Table { page: "cores", kind: Kind::Loaded, work: "serve", ..BASE };
const CHURN: Table = Table { page: "churn", timed: 60, instructions: 10, system_calls: 10, ..ECHO };
const IDLE: Table = Table { page: "idle", kind: Kind::Idle, work: "serve", ..BASE };
const TRADE: Table = Table { page: "trades", ..ECHO };
const DATA: Table = Table { page: "data", work: "data", timed: 500_000, instructions: 20_000, ..BASE };
const NEIGHBOUR: Table =
    Table { page: "neighbour", work: "neighbour", timed: 500_000, instructions: 20_000, ..BASE };
const DEADLINE: Table =
    Table { page: "deadline", work: "deadline", timed: 500_000, instructions: 20_000, ..BASE };
const DIRECT: Table = Table { timed: 12_000, instructions: 2_000, system_calls: 0, ..READ };
const TEARDOWN: Table = Table { page: "teardown", work: "teardown", key: "rounds", ..BASE };

/// All tables, in the order of the pages.
pub(crate) const TABLES: &[Table] = &[
    Table { name: "depth-128", title: "NOP, depth 128", args: &["depth=128"], ..NOP },
    Table { name: "depth-32", title: "NOP, depth 32", args: &["depth=32"], ..NOP },
    Table { name: "depth-1", title: "NOP, depth 1", args: &["depth=1"], timed: 250_000, ..NOP },
    Table {
        name: "plain-depth-32",
        title: "4 KiB from the page cache, depth 32",
        args: &["mode=plain", "depth=32"],
        ..READ
    },
    Table {
        name: "plain-depth-1",
        title: "4 KiB from the page cache, depth 1",
        args: &["mode=plain", "depth=1"],
        timed: 60_000,
        ..READ
    },
    Table {
        name: "registered-depth-32",
        title: "4 KiB from the page cache into registered buffers, depth 32",
        args: &["mode=fixed", "depth=32"],
        ..READ
    },
    Table {
        name: "registered-depth-1",
        title: "4 KiB from the page cache into registered buffers, depth 1",
        args: &["mode=fixed", "depth=1"],
        timed: 60_000,
        ..READ
    },
    Table {
        name: "direct-depth-32",
        title: "4 KiB with `O_DIRECT`, depth 32",
        args: &["mode=direct", "depth=32"],
        ..DIRECT
    },
    Table {
        name: "direct-registered-depth-32",
        title: "4 KiB with `O_DIRECT` into registered buffers, depth 32",
        args: &["mode=direct-fixed", "depth=32"],
        ..DIRECT
    },
    Table {
        name: "multishot-64x64",
        title: "64 connections, 64 B, multishot",
        args: &["shape=multishot", "conns=64", "size=64"],
        ..ECHO
    },
    Table {
        name: "oneshot-64x64",
        title: "64 connections, 64 B, one-shot",
        args: &["shape=oneshot", "conns=64", "size=64"],
        ..ECHO
    },
    Table {
        name: "multishot-64x1024",
        title: "64 connections, 1 KiB, multishot",
        args: &["shape=multishot", "conns=64", "size=1024"],
        instructions: 20,
        system_calls: 20,
        ..ECHO
    },
    Table {
        name: "oneshot-64x1024",
        title: "64 connections, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=64", "size=1024"],
        instructions: 20,
        system_calls: 20,
        ..ECHO
    },
    Table {
        name: "multishot-64x16384",
        title: "64 connections, 16 KiB, multishot, buffers of 2 KiB",
        args: &["shape=multishot", "conns=64", "size=16384"],
        timed: 25,
        ..ECHO
    },
    Table {
        name: "multishot-64x16384-large-buffers",
        title: "64 connections, 16 KiB, multishot, buffers of 16 KiB",
        args: &["shape=multishot", "conns=64", "size=16384", "buffer=16384"],
        timed: 60,
        ..ECHO
    },
    Table {
        name: "oneshot-64x16384",
        title: "64 connections, 16 KiB, one-shot, buffers of 16 KiB",
        args: &["shape=oneshot", "conns=64", "size=16384", "buffer=16384"],
        timed: 60,
        ..ECHO
    },
    Table {
        name: "multishot-1x1024",
        title: "1 connection, 1 KiB, multishot",
        args: &["shape=multishot", "conns=1", "size=1024"],
        timed: 5_000,
        ..ECHO
    },
    Table {
        name: "oneshot-1x1024",
        title: "1 connection, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=1", "size=1024"],
        timed: 5_000,
        ..ECHO
    },
    Table {
        name: "multishot-512x1024",
        title: "512 connections, 1 KiB, multishot",
        args: &["shape=multishot", "conns=512", "size=1024"],
        timed: 25,
        ..ECHO
    },
    Table {
        name: "oneshot-512x1024",
        title: "512 connections, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=512", "size=1024"],
        timed: 25,
        ..ECHO
    },
    Table {
        name: "multishot-64x1024",
        title: "64 connections, 1 KiB, multishot",
        args: &["shape=multishot", "conns=64", "size=1024"],
        ..LOADED
    },
    Table {
        name: "oneshot-64x1024",
        title: "64 connections, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=64", "size=1024"],
        ..LOADED
    },
    Table {
        name: "oneshot-64x16384",
        title: "64 connections, 16 KiB, one-shot, buffers of 16 KiB",
        args: &["shape=oneshot", "conns=64", "size=16384", "buffer=16384"],
        ..LOADED
    },
    Table {
        name: "oneshot-1x1024",
        title: "1 connection, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=1", "size=1024"],
        ..LOADED
    },
    Table {
        name: "oneshot-512x1024",
        title: "512 connections, 1 KiB, one-shot",
        args: &["shape=oneshot", "conns=512", "size=1024"],
        ..LOADED
    },
    Table {
        name: "multishot",
        title: "64 at a time: accept, one message of 1 KiB, close; multishot",
        args: &["shape=multishot", "conns=64", "size=1024", "churn=1"],
        ..CHURN
    },
    Table {
        name: "oneshot",
        title: "64 at a time: accept, one message of 1 KiB, close; one-shot",
        args: &["shape=oneshot", "conns=64", "size=1024", "churn=1"],
        ..CHURN
    },
    Table {
        name: "multishot",
        title: "10 000 connections after one message of 1 KiB each, multishot, 64 buffers",
        args: &["shape=multishot", "buffers=64"],
        ..IDLE
    },
    Table {
        name: "oneshot",
        title: "10 000 connections after one message of 1 KiB each, one-shot, a buffer of 4 KiB each",
        args: &["shape=oneshot"],
        ..IDLE
    },
    Table { name: "8", title: "8 bytes, depth 32", args: &["size=8", "depth=32"], ..DATA },
    Table { name: "64", title: "64 bytes, depth 32", args: &["size=64", "depth=32"], ..DATA },
    Table { name: "256", title: "256 bytes, depth 32", args: &["size=256", "depth=32"], ..DATA },
    Table {
        name: "4096",
        title: "4096 bytes, depth 32",
        args: &["size=4096", "depth=32"],
        timed: 200_000,
        instructions: 10_000,
        ..DATA
    },
    Table {
        name: "depth-32",
        title: "NOPs to itself and to the neighbour, depth 32",
        args: &["among=tags", "depth=32"],
        ..NEIGHBOUR
    },
    Table {
        name: "depth-32",
        title: "NOPs with deadlines that they keep, depth 32",
        args: &["among=deadlines", "depth=32"],
        ..DEADLINE
    },
    Table {
        name: "1000",
        title: "1000 reads in flight",
        args: &["cancel=each", "requests=1000"],
        ..TEARDOWN
    },
    Table {
        name: "10000",
        title: "10 000 reads in flight",
        args: &["cancel=each", "requests=10000"],
        ..TEARDOWN
    },
    Table {
        name: "100000",
        title: "100 000 reads in flight",
        args: &["cancel=each", "requests=100000"],
        ..TEARDOWN
    },
    Table {
        name: "mixed-100000",
        title: "100 000 reads in flight, whose slots were used before",
        args: &["cancel=each", "requests=100000", "order=mixed"],
        ..TEARDOWN
    },
    Table {
        name: "timers-10000",
        title: "10 000 timers in flight",
        args: &["cancel=each", "requests=10000", "kind=timer"],
        ..TEARDOWN
    },
    Table {
        name: "mixed-timers-10000",
        title: "10 000 timers in flight, whose slots were used before",
        args: &["cancel=each", "requests=10000", "kind=timer", "order=mixed"],
        ..TEARDOWN
    },
    Table {
        name: "oneshot-64x1024",
        title: "64 connections, 1 KiB, one-shot",
        args: &["trade=oneshot", "shape=oneshot", "conns=64", "size=1024"],
        system_calls: 20,
        ..TRADE
    },
    Table {
        name: "oneshot-64x16384",
        title: "64 connections, 16 KiB, one-shot, buffers of 16 KiB",
        args: &["trade=large", "shape=oneshot", "conns=64", "size=16384", "buffer=16384"],
        timed: 60,
        ..TRADE
    },
    Table {
        name: "multishot-64x16384",
        title: "64 connections, 16 KiB, multishot, buffers of 2 KiB",
        args: &["trade=bundles", "shape=multishot", "conns=64", "size=16384"],
        timed: 25,
        ..TRADE
    },
    Table {
        page: "trades",
        name: "nop-depth-128",
        title: "NOP, depth 128",
        args: &["trade=nop", "depth=128"],
        timed: 250_000,
        instructions: 0,
        ..NOP
    },
    Table {
        page: "trades",
        name: "nop-depth-1",
        title: "NOP, depth 1",
        args: &["trade=nop", "depth=1"],
        timed: 50_000,
        instructions: 0,
        system_calls: 0,
        ..NOP
    },
    Table { page: "compile", name: "seconds", title: "Seconds to compile", kind: Kind::Compiled, ..BASE },
];
