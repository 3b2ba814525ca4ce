//! Nothing but examples: see the files beside `src`.
