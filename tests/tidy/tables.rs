//! The house as data: who may import whom, what is how long, which words are not used.
//!
//! Owns: the tables. A change of the house is a change here and in ARCHITECTURE.md, which `documents` compares.

/// Which folder of src/ may import which. `main` and `lib` are the files of those names. Imports point down.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("telemetry", &["types"]),
    ("db", &["types"]),
    ("store", &["types", "telemetry"]),
    ("meta", &["types", "db"]),
    ("remote", &["types", "store"]),
    ("read", &["types", "store"]),
    ("write", &["types", "db", "store", "read"]),
    ("fs", &["types", "store", "meta", "remote", "read", "write"]),
    ("fuse", &["types", "fs"]),
    ("daemon", &["types", "telemetry", "db", "store", "meta", "remote", "read", "write", "fs", "fuse"]),
    ("devserver", &["types"]),
    ("demo", &["types"]),
    ("cli", &["types", "telemetry", "daemon", "devserver", "demo"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// What tests within src/ may import beyond that. Nothing so far: a test that needs more is a test for tests/.
pub(crate) const IN_TESTS: &[(&str, &[&str])] = &[];

/// Crates (or modules of crates, or beginnings of names that end in `_`) that belong to few rooms.
pub(crate) const CRATES: &[(&str, &[&str])] = &[
    ("fuser", &["fuse"]),
    ("nix::mount", &["fuse"]),
    // The dev server keeps an index of its own, which has nothing to do with the catalogue.
    ("rusqlite", &["db", "devserver"]),
    ("aws_", &["store"]),
    ("hyper_rustls", &["store"]),
    ("rustls", &["store"]),
    ("hyper", &["store", "devserver"]),
    ("hyper_util", &["store", "devserver"]),
    ("s3s", &["devserver"]),
    ("moka", &["read", "fs"]),
    ("globset", &["fs"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("tracing_subscriber", &["telemetry"]),
    ("zip", &["demo"]),
];

/// Longest file of src/, without its tests.
pub(crate) const FILE_LINES_MAX: usize = 500;
/// Longest function.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, with their length. The numbers go down only.
pub(crate) const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Words that say nothing of what a thing owns, or that stand for several things. `do_` begins no function.
pub(crate) const WORDS_NOT_USED: &[&str] =
    &["blob", "chunk", "segment", "spool", "manager", "helper", "util", "utility", "utilities", "common", "handler"];

/// Names that contain such a word for a reason.
pub(crate) const NAMES_ALLOWED: &[(&str, &str, &str)] = &[
    ("src/cli/args.rs", "MountHelper", "mount(8) calls the programs that it starts \"mount helpers\""),
    ("tests/mount/common.rs", "common", "to be renamed after what it owns"),
    ("tests/mount/main.rs", "common", "to be renamed after what it owns"),
];

/// Paths that a file of the repository may name although they look like one machine's: file, path, reason.
pub(crate) const PLACES_ALLOWED: &[(&str, &str, &str)] =
    &[("scripts/fresh-root", concat!("/ro", "ot/"), "root's home inside of the root that the script makes")];
