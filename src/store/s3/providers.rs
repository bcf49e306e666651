//! Limits in which known providers differ from Amazon S3's.
//!
//! Owns: the table, which is the only place in objfs that knows providers by name. Does not own: conditions, which are
//! probed (`store::probe`).

use super::super::Capabilities;

/// One row: the end of the host name, and what differs there.
struct Row {
    host_suffix: &'static str,
    differ: fn(Capabilities) -> Capabilities,
}

const GB: u64 = 1_000_000_000;
const TB: u64 = 1000 * GB;
const GIB: u64 = 1 << 30;

/// First match wins. Each row names where the numbers are from.
const TABLE: &[Row] = &[
    // AWS, "Amazon S3 multipart upload limits": objects up to 10,000 parts of 5 GiB since December 2025.
    Row { host_suffix: ".amazonaws.com", differ: |c| Capabilities { object_size_max: 10_000 * 5 * GIB, ..c } },
    // Cloudflare R2, "Limits": all parts but the last of one size; 4.995 GiB per request, 4.995 TiB per object; 8,192 bytes of
    // metadata.
    Row {
        host_suffix: ".r2.cloudflarestorage.com",
        differ: |c| Capabilities {
            parts_equal: true,
            put_size_max: c.put_size_max - 5 * (1 << 20),
            part_size_max: c.part_size_max - 5 * (1 << 20),
            copy_size_max: c.copy_size_max - 5 * (1 << 20),
            object_size_max: c.object_size_max - 5 * GIB,
            user_metadata_max: 8192,
            ..c
        },
    },
    // Scaleway, "Object Storage limits": 1,000 parts.
    Row {
        host_suffix: ".scw.cloud",
        differ: |c| Capabilities { part_count_max: 1000, object_size_max: 1000 * 5 * GIB, ..c },
    },
    // Backblaze B2, "S3-compatible API": decimal units, 10 TB objects.
    Row {
        host_suffix: ".backblazeb2.com",
        differ: |c| Capabilities {
            put_size_max: 5 * GB,
            part_size_max: 5 * GB,
            copy_size_max: 5 * GB,
            object_size_max: 10 * TB,
            ..c
        },
    },
];

/// The limits of the server at this host.
pub(super) fn capabilities(host: &str) -> Capabilities {
    let row = TABLE.iter().find(|row| host.ends_with(row.host_suffix));
    row.map_or_else(Capabilities::default, |row| (row.differ)(Capabilities::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        assert!(capabilities("id.r2.cloudflarestorage.com").parts_equal);
        assert_eq!(capabilities("s3.fr-par.scw.cloud").part_count_max, 1000);
        assert_eq!(capabilities("127.0.0.1"), Capabilities::default());
        assert_eq!(capabilities("r2.cloudflarestorage.com.example.org"), Capabilities::default());
    }
}
