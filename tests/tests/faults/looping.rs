//! What the loop must take: signals, overflow, streams that are cut.
