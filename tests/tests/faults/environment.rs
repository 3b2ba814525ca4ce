//! What surrounds a ring: limits, sandboxes, forks, threads.
