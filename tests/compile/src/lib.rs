//! Nothing: the tests are programs, in `ui` those that must not compile, in `pass` those that must.
