//! The Debian package: what lintian says of it, and what its installation, upgrade and removal do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod booted;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use varta_integration_tests::foreign::{installed, skip};
use varta_integration_tests::{Scratch, run_to_its_end, server_command, sys};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes the package with this revision from the programs that are tested, if cargo-deb is there.
fn package(scratch: &Scratch, revision: &str) -> Option<PathBuf> {
    let cargo_deb = installed("cargo-deb")?.get_program().to_owned();
    let built = scratch.path(&format!("built-{revision}"));
    std::fs::create_dir(&built).unwrap();
    symlink(server_command().get_program(), built.join("varta-server")).unwrap();
    symlink(env!("CARGO_BIN_EXE_varta-packaging"), built.join("varta-packaging")).unwrap();
    let mut command = Command::new(top().join("scripts/build-deb"));
    command.arg(scratch.directory()).env("CARGO_DEB", cargo_deb).env("VARTA_BUILT", built);
    command.env("DEB_REVISION", revision).env("VARTA_DEB_FAST", "1");
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    Some(String::from_utf8(ended.stdout).unwrap().trim().into())
}

/// Runs what takes long on a busy host. `timeout` ends it if it hangs.
fn run_long(command: &Command) -> (Output, String, String) {
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=5", "600"]).arg(command.get_program()).args(command.get_args());
    let output = limited.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

#[test]
fn lintian_finds_no_error_and_no_warning() {
    let scratch = Scratch::make();
    let Some(mut lintian) = installed("lintian") else { return };
    let Some(package) = package(&scratch, "1") else { return };
    lintian.args(["--fail-on", "error,warning", "--allow-root"]).arg(package);
    let (ended, stdout, stderr) = run_long(&lintian);
    assert!(ended.status.success(), "{stdout}{stderr}");
}

/// Installs, upgrades, removes and purges in a tree over that of this host, in which nothing may be started: `$1` is
/// a directory, `$2` and `$3` are two revisions of the package.
const LIFE: &str = r#"
exec 3>&1 >&2
mount -t tmpfs none "$1/tree" || exit 77
mkdir "$1/tree/upper" "$1/tree/work" "$1/tree/root"
root="$1/tree/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/tree/upper,workdir=$1/tree/work" "$root" || exit 77
for place in dev proc; do mount --rbind "/$place" "$root/$place" || exit 77; done
for place in run tmp; do mount -t tmpfs none "$root/$place" || exit 77; done
# As on a host that systemd has started, whose services the administrator has forbidden to start.
mkdir -p "$root/run/systemd/system"
printf '#!/bin/sh\necho "$1 $2" >>/tmp/asked\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
cp "$2" "$root/tmp/first.deb"
cp "$3" "$root/tmp/second.deb"

say() { echo "$@" >&3; }
in_tree() { PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"; }
set -e
in_tree dpkg --install /tmp/first.deb
say "installed: $(cat "$root/tmp/asked"; : >"$root/tmp/asked")"
say "user: $(in_tree id --name --user varta) $(in_tree stat --format '%a %U:%G' /etc/varta)"
say "enabled: $(in_tree readlink /etc/systemd/system/multi-user.target.wants/varta.service)"
say "page: $(in_tree sh -c 'ls /usr/share/man/man1/varta-server-ack.1*')"
say "started: $(! test -e "$root/run/varta" || echo yes)"

# What the unit does: the user, the directories, and the command.
in_tree install -d -o varta -g varta /run/varta /var/lib/varta /var/log/varta
chroot "$root" setpriv --reuid varta --regid varta --init-groups env --ignore-environment PATH=/usr/bin \
    RUNTIME_DIRECTORY=/run/varta varta-server --config /etc/varta/varta.toml --state-dir /var/lib/varta --metrics-addr none &
server=$!
trap 'kill -KILL $server 2>/dev/null || true' EXIT
tries=0
until in_tree varta-server pauses --config /etc/varta/varta.toml --socket /run/varta/varta.sock; do
    tries=$((tries + 1)); [ $tries -lt 300 ]
    sleep 0.1
done
say "runs: as $(in_tree stat --format %U "/proc/$server")"
kill $server
result=0
wait $server || result=$?
say "stopped: $result"

echo '# mine' >>"$root/etc/varta/varta.toml"
in_tree dpkg --install /tmp/second.deb
say "upgraded: $(cat "$root/tmp/asked"; : >"$root/tmp/asked")"
say "configuration: $(tail -n 1 "$root/etc/varta/varta.toml")"
in_tree rm /etc/systemd/system/multi-user.target.wants/varta.service
in_tree dpkg --install /tmp/second.deb
say "disabled: $(! test -e "$root/etc/systemd/system/multi-user.target.wants/varta.service" || echo enabled again)"
: >"$root/tmp/asked"

echo secret >"$root/etc/varta/varta.key"
in_tree dpkg --remove varta-server
say "removed: $(cat "$root/tmp/asked") $(ls "$root/etc/varta" | tr '\n' ' ')$(ls -d "$root/var/lib/varta" | wc -l)"
in_tree dpkg --purge varta-server
say "purged: $(ls "$root/etc/varta") $(ls -d "$root/var/lib/varta" "$root/var/log/varta" 2>/dev/null)"
say "left: $(find "$root/etc/systemd" "$root/usr/lib/systemd" "$root/var/lib/systemd" -name '*varta*')"
"#;

#[test]
fn the_package_is_installed_upgraded_and_purged_as_policy_wants_it() {
    if sys::user() != 0 {
        return skip("to install a package takes root");
    }
    let scratch = Scratch::make();
    let Some(first) = package(&scratch, "1") else { return };
    let Some(second) = package(&scratch, "2") else { return };
    std::fs::create_dir(scratch.path("tree")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", LIFE, "bash"]);
    command.arg(scratch.directory()).arg(first).arg(second);
    let (ended, stdout, stderr) = run_long(&command);
    if ended.status.code() == Some(77) {
        return skip(&format!("no tree can be mounted over that of this host: {stderr}"));
    }
    let expected = [
        "installed: varta.service start",
        "user: varta 750 root:varta",
        "enabled: /lib/systemd/system/varta.service",
        "page: /usr/share/man/man1/varta-server-ack.1.gz",
        "started: ",
        "runs: as varta",
        "stopped: 0",
        "upgraded: varta.service try-restart",
        "configuration: # mine",
        "disabled: ",
        "removed: varta.service stop varta.key varta.toml 1",
        "purged: varta.key ",
        "left: ",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected, "{stderr}");
    assert!(ended.status.success(), "{stderr}");
}

#[test]
fn shellcheck_finds_no_fault_in_the_scripts() {
    let Some(mut shellcheck) = installed("shellcheck") else { return };
    let scripts = ["postinst", "prerm", "postrm"].map(|name| top().join("deploy/debian/scripts").join(name));
    let others = [
        "scripts/build-deb",
        "packaging/src/names.bash",
        "packaging/tests/debian/boot.sh",
        "packaging/tests/debian/trial.sh",
    ];
    shellcheck.args(scripts).args(others.map(|name| top().join(name)));
    let ended = run_to_its_end(shellcheck);
    assert!(ended.status.success(), "{}", ended.stdout);
}
