//! Canaries: the kernel writes where no sanitizer sees it.
