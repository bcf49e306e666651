//! Tests of the file system without a kernel. Owns nothing else.
