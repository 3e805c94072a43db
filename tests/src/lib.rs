//! Whole-program tests on real sockets.
