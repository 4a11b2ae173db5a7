//! What hosts have before the first task: files with owners, ACLs and attributes, links, accounts, units, a mount, kernel parameters.
//!
//! In: the root of a host that is not running. Out: that root, prepared. The same on each host of a site.

use std::{fmt::Write as _, io, path::Path, process::Command};

use super::things::{Before, Thing, before};
use crate::xattrs;

const SCRIPT: &str = r#"
printf '#!/bin/sh\n' > /usr/sbin/cron; chmod 755 /usr/sbin/cron
mkdir -p /srv/prop /etc/prop /root/prop /opt/prop/a1 /srv/prop/m1 /srv/prop/m2 /srv/prop/d1 /srv/prop/target0 /etc/cron.d
rmdir /srv/prop/target0; for n in 0 1 2 3; do echo "target $n" > /srv/prop/target$n; done
printf '# theirs\n#key0=theirs\nother = 1\nkey1=theirs\nlast\n' > /etc/prop/lines0
printf 'first\nkey2=theirs\n#key3=old\nno end' > /etc/prop/lines2; chmod 640 /etc/prop/lines2
printf '; theirs\n[s0]\no0 = theirs\nx = 1\n\n[other]\ny=2\n\n[s1]\n# about\no1=theirs\n' > /etc/prop/options0.ini
printf '[s1]\no3 = a\nz=1' > /etc/prop/options2.ini; chmod 640 /etc/prop/options2.ini
echo 'none /srv/prop/m2 ramfs mode=700 0 0' >> /etc/fstab
echo theirs > /etc/prop/plain; printf 'server {\n  listen 80;\n}\n' > /etc/prop/braces
echo theirs > /srv/prop/theirs; echo theirs > /opt/prop/a1/theirs; echo theirs > /srv/prop/d1/theirs
chown daemon /srv/prop/d1; chmod 2750 /srv/prop/d1
useradd -m -u 4701 -s /bin/sh -c theirs gu1; echo 'gu1:$6$old$hash' | chpasswd -e; usermod -L gu1
useradd -m -u 4703 -s /bin/sh gu3; mkdir -m 700 /home/gu3/.ssh; echo 'ssh-ed25519 AAAATHEIRS theirs' > /home/gu3/.ssh/authorized_keys
echo dear > /home/gu1/letter; chown -R gu1: /home/gu1; chown -R gu3: /home/gu3
groupadd -g 4801 gg1; usermod -a -G gg1 bin
unit() { printf '[Service]\nExecStart=/bin/sleep %sd\n[Install]\nWantedBy=multi-user.target\n' $2 > $1; }
unit /etc/systemd/system/prop2.service 3129; unit /lib/systemd/system/prop3.service 3139
mkdir /etc/systemd/system/prop2.service.d; printf '[Service]\nNice=1\n' > /etc/systemd/system/prop2.service.d/10-x.conf
ln -s /etc/systemd/system/prop2.service /etc/systemd/system/multi-user.target.wants/prop2.service
echo 'net.ipv4.conf.default.log_martians = 1' > /etc/sysctl.d/10-prop.conf
cd /tmp; mkdir -p prop/dir
echo x0 > prop/x; echo y > prop/dir/y; tar -C prop -cf /root/prop/0.tar x dir
echo x1 > prop/x; echo z > prop/dir/z; tar -C prop -cf /root/prop/1.tar x dir
rm -r prop/dir; echo file > prop/dir; tar -C prop -cf /root/prop/2.tar x dir
rm -r prop
echo CHASSIS=vm > /etc/machine-info
mkdir -p /lib/modules/$(uname -r); echo kernel/gp/gp_three.ko > /lib/modules/$(uname -r)/modules.builtin
"#;

/// A repository of packages on the host, two of them installed, one of these for the other; and archives of images, of which one is in
/// podman's store under the name that it has in the archive.
const PACKAGES: &str = r#"
mkdir -p /srv/repo /opt/gp /etc/gp /proc; echo theirs > /opt/gp/theirs; echo theirs > /etc/gp/theirs
make() {
    rm -rf /tmp/deb; mkdir -p /tmp/deb/DEBIAN /tmp/deb/opt/gp
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: test\n' $1 $2 > /tmp/deb/DEBIAN/control
    [ -z "$3" ] || echo "Depends: $3" >> /tmp/deb/DEBIAN/control
    echo $1 $2 > /tmp/deb/opt/gp/$1
    if [ $1 = gp-conf ]; then
        mkdir -p /tmp/deb/etc/gp; echo conf > /tmp/deb/etc/gp/$1.conf; echo /etc/gp/$1.conf > /tmp/deb/DEBIAN/conffiles
    fi
    dpkg-deb --root-owner-group -Zgzip --build /tmp/deb /srv/repo/$1_$2_all.deb > /dev/null
}
make gp-a 1.0 gp-lib; make gp-b 1.0 gp-lib; make gp-c 1.0 gp-lib; make gp-c 2.0 gp-lib; make gp-lib 1.0
make gp-old 1.0; make gp-old 2.0; make gp-top 1.0 gp-old; make gp-conf 1.0
rm -r /tmp/deb; cd /srv/repo
for deb in *.deb; do
    dpkg-deb -f $deb
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' $deb $(stat -c %s $deb) $(sha256sum $deb | cut -d' ' -f1)
done > Packages
echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list.d/local.list
apt-get -q -o APT::Sandbox::User=root update
dpkg -i gp-old_1.0_all.deb gp-top_1.0_all.deb; apt-mark auto gp-old
for n in 0 1 2; do
    mkdir -p /tmp/image/root; cd /tmp/image; echo $n > root/version
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C root -cf layer.tar .
    printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        $(sha256sum layer.tar | cut -d' ' -f1) > config
    config=$(sha256sum config | cut -d' ' -f1).json; mv config $config
    printf '[{"Config":"%s","RepoTags":["localhost/archived%s:1"],"Layers":["layer.tar"]}]' $config $((n / 2)) > manifest.json
    tar -cf /root/prop/image$n.tar manifest.json $config layer.tar; cd /; rm -r /tmp/image
done
podman --storage-driver vfs load --quiet --input /root/prop/image0.tar
podman --storage-driver vfs tag localhost/archived0:1 localhost/gi1:1
"#;

/// Prepares a root.
pub(super) fn prepare(root: &Path) -> io::Result<()> {
    let (mut script, mut files) =
        (SCRIPT.to_owned(), vec!["/etc/prop/lines2".to_owned(), "/etc/prop/options2.ini".to_owned()]);
    for thing in Thing::all() {
        let Thing::Path(n) = thing else { continue };
        let path = format!("/srv/prop/p{n}");
        let _ = match before(n) {
            Before::Nothing => Ok(()),
            Before::File => {
                files.push(path.clone());
                writeln!(script, "echo theirs {n} > {path}; chmod 640 {path}; chown 1:2 {path}")
            }
            Before::Link => writeln!(script, "ln -s /srv/prop/target0 {path}"),
            Before::Equal => writeln!(script, "printf 'content 0\\n' > {path}"),
        };
    }
    script += PACKAGES;
    // In namespaces of its own, so that nothing of it outlives it. Podman reads its limits and control groups.
    let mounts = "mount -t proc proc \"$1/proc\"; mount -t sysfs sysfs \"$1/sys\"; mount --rbind /sys/fs/cgroup \"$1/sys/fs/cgroup\"\n";
    let mut prepare = Command::new("unshare");
    prepare.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec"]);
    prepare.arg(format!("{mounts}chroot \"$1\" sh -ec \"$2\"")).arg("prepare").arg(root).arg(&script);
    let output = prepare.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("the script failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    for file in files {
        let path = root.join(file.trim_start_matches('/'));
        xattrs::set(&path, "system.posix_acl_access", &xattrs::readable_by(3))?;
        xattrs::set(&path, "user.prop", b"theirs")?;
    }
    Ok(())
}
