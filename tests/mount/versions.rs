//! A bucket that keeps the versions of its objects.

use crate::common::{Store, names};

#[test]
fn the_newest_version_is_shown_and_a_delete_leaves_a_delete_marker() {
    let store = Store::moto();
    let script = "s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={'Status': 'Enabled'})\n\
        s3.put_object(Bucket=bucket, Key='a', Body=b'first')\n\
        print(s3.put_object(Bucket=bucket, Key='a', Body=b'second')['VersionId'], end='')";
    let newest = store.boto(script, &[]);
    let mount = store.mount();
    assert_eq!(mount.sh("cat a; getfattr --only-values -n user.objfs.version a"), format!("second{newest}"));
    mount.sh("rm a");
    assert!(names(mount.root()).is_empty());
    let script = "v = s3.list_object_versions(Bucket=bucket, Prefix='a')\n\
        print(len(v['Versions']), len(v['DeleteMarkers']))";
    assert_eq!(store.boto(script, &[]), "2 1\n");
}
