//! The texts of tasks for the things of made-up sites, by kind.
//!
//! In: a thing's number and what is chosen of its parameters. Out: `kind = { … }`. Pure.

use std::fmt::Write as _;

use super::choice::{Choice, Fault, content, lines_file, module_name, options_file, unit_name};

/// The hash of the password `secret`.
const HASH: &str = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGg9Yf5hK3bq0wX1L2m9k6i3n7u8v4r5t6y7z8a9b0";

pub(super) fn path(n: u8, id: &str, choice: Choice, source: &mut Option<(String, String)>) -> String {
    let (path, access) = (format!("/srv/prop/p{n}"), access(choice.access));
    let validate = match choice.fault {
        Some(Fault::Validation) => ", validate = { command = \"test -d %s\" }",
        _ if choice.form == 3 => ", validate = { command = \"test -s %s\" }",
        _ => "",
    };
    match choice.form {
        1 => {
            let name = format!("{id}.j2");
            *source = Some((name.clone(), format!("{{# by {id} #}}template {}\n", choice.content)));
            format!("template = {{ source = \"{name}\", path = \"{path}\"{access} }}")
        }
        2 => {
            format!("link = {{ path = \"{path}\", target = \"/srv/prop/target{}\", force = true }}", choice.content)
        }
        4 => format!("directory = {{ path = \"{path}\"{access} }}"),
        _ => format!("file = {{ path = \"{path}\", content = \"{}\"{access}{validate} }}", content(choice.content)),
    }
}

pub(super) fn access(n: u8) -> String {
    let choices =
        ["", ", mode = \"0640\", owner = \"daemon\", group = \"games\"", ", mode = \"0700\"", ", owner = \"bin\""];
    choices[usize::from(n) % choices.len()].to_owned()
}

pub(super) fn line(file: u8, place: u8, form: u8, content: u8) -> String {
    let path = format!("path = \"{}\"", lines_file(file));
    let found = format!("match = \"^#?key{place}=\"");
    match form {
        0 => format!("line = {{ {path}, {found}, line = \"key{place}={content}\" }}"),
        1 => format!("line = {{ {path}, line = \"plain{place} {content}\" }}"),
        2 => format!(
            "line = {{ {path}, marker = \"# {{mark}} block{place}\", block = \"block{place} {content}\\nblock{place} end\" }}"
        ),
        _ => format!("line = {{ {path}, {found}, state = \"absent\" }}"),
    }
}

pub(super) fn option(file: u8, place: u8, form: u8, content: u8) -> String {
    let (path, section) = (format!("path = \"{}\"", options_file(file)), format!("s{}", place % 2));
    let option = format!("{path}, section = \"{section}\", option = \"o{place}\"");
    match form {
        0 => format!("ini = {{ {option}, value = \"v{content}\" }}"),
        1 => format!(
            "ini = {{ {path}, values = {{ {section} = {{ o{place} = \"w{content}\", o{place}b = {content} }} }} }}"
        ),
        2 => format!("ini = {{ {option}, value = [\"one\", \"two{content}\"] }}"),
        _ => format!("ini = {{ {option}, state = \"absent\" }}"),
    }
}

pub(super) fn user(n: u8, content: u8) -> String {
    let (number, keys) = (u32::from(n), format!("ssh_keys = [\"{KEY}{content} one\"]"));
    if n >= 2 {
        return format!("user = {{ name = \"gu{n}\", comment = \"comment {content}\", remove_home = true, {keys} }}");
    }
    let shell = ["/bin/bash", "/bin/sh"][usize::from(content % 2)];
    let home = if content < 2 { format!("/home/gu{n}") } else { format!("/srv/prop/home{n}") };
    let mut text = format!(
        "user = {{ name = \"gu{n}\", uid = {}, shell = \"{shell}\"",
        5000 + number * 100 + u32::from(content) * 10
    );
    let _ = write!(
        text,
        ", comment = \"comment {content}\", home = \"{home}\", groups = [\"games\"], password = \"{HASH}\", locked = {}, remove_home = true }}",
        content.is_multiple_of(2)
    );
    text
}

pub(super) fn unit(n: u8, form: u8, content: u8) -> String {
    let (unit, run) = (format!("unit = \"{}\", masked = false", unit_name(n)), format!("31{n}{content}d"));
    let file =
        format!("content = \"[Service]\\nExecStart=/bin/sleep {run}\\n[Install]\\nWantedBy=multi-user.target\\n\"");
    match form {
        0 => format!("systemd = {{ {unit}, {file}, enabled = true, state = \"started\" }}"),
        1 => format!("systemd = {{ {unit}, {file}, enabled = false, state = \"stopped\" }}"),
        2 => format!(
            "systemd = {{ {unit}, {file}, enabled = false, state = \"started\", dropins = {{ \"10-x.conf\" = \"[Service]\\nNice={content}\\n\" }} }}"
        ),
        _ => format!("systemd = {{ {unit}, enabled = true, state = \"started\" }}"),
    }
}

pub(super) fn broken(n: u8) -> String {
    let text = match n {
        0 => "file = { path = \"/etc/prop/plain/x\", content = \"x\" }",
        1 => "ini = { path = \"/etc/prop/braces\", section = \"a\", option = \"b\", value = 1 }",
        2 => "link = { path = \"/srv/prop/theirs\", target = \"nowhere\" }",
        3 => "user = { name = \"gubad\", group = \"nosuchgroup\" }",
        4 => "mount = { path = \"/srv/prop/nodevice\", source = \"/dev/nosuchdevice\", fstype = \"ext4\" }",
        _ => "command = { run = \"exit 3\" }",
    };
    text.to_owned()
}

pub(super) fn module(n: u8, content: u8) -> String {
    let what = match n {
        2 => format!("params = {{ gp = {} }}", content.is_multiple_of(2)),
        _ => format!("state = \"absent\", blacklist = {}", content.is_multiple_of(2)),
    };
    format!("module = {{ name = \"{}\", {what} }}", module_name(n))
}

pub(super) fn package(n: u8, form: u8, content: u8) -> String {
    let hold = content.is_multiple_of(2);
    match n {
        0 => {
            let names = [r#""gp-a""#, r#""gp-b""#, r#""gp-a", "gp-b""#][usize::from(form) % 3];
            format!("package = {{ names = [{names}], hold = {hold} }}")
        }
        1 => format!("package = {{ names = [\"gp-c\"], version = \"{}.*\", hold = false }}", 1 + content % 2),
        // There before, for another one.
        2 => format!("package = {{ names = [\"gp-old\"], version = \"1.0\", hold = {hold} }}"),
        // With a file of configuration, which does not stay either.
        _ => format!("package = {{ names = [\"gp-conf\"], hold = {hold}, purge = true }}"),
    }
}
