use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

#[test]
fn a_replaced_file_keeps_its_mode_and_no_symlink_beside_it_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let [file, other] = ["filter.yaml", "other"].map(|name| folder.path().join(name));
    fs::write(&other, "other").unwrap();
    symlink(&other, folder.path().join("filter.yaml.new")).unwrap();
    for mode in [0o640, 0o604] {
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        replace(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        let found = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode);
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 3, "nothing is left behind");
}
