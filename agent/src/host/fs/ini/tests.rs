use super::*;

const SAMPLE: &str = "\
# Top.
[DEFAULT]
# Whether to say more. (boolean value)
#debug = false

log_dir=/var/log
hosts = a,
    b
  # between
    c
; end

[database]
    connection = x
    backend: y
[empty]
";

fn parsed(text: &str) -> Document {
    Document::parse(text).unwrap()
}

fn set(text: &str, section: &str, option: &str, values: &[&str]) -> String {
    let mut document = parsed(text);
    let values: Vec<String> = values.iter().map(|v| v.to_string()).collect();
    assert!(document.set(section, option, &values));
    assert!(!document.set(section, option, &values), "twice is once");
    assert_eq!(document.get(section, option), values);
    let text = document.text();
    assert_eq!(parsed(&text), document, "what is written is read the same:\n{text}");
    text
}

#[test]
fn what_is_read_is_written() {
    for text in [
        SAMPLE,
        "",
        "\n\n",
        "a=b",
        "[x]\r\ny = z\r\n",
        "!includedir /etc/x\n[mysqld]\nskip-networking\n",
        "\u{feff}[a]\nb=c\n",
    ] {
        assert_eq!(parsed(text).text(), text);
    }
    let sample = parsed(SAMPLE);
    assert_eq!(sample.get("DEFAULT", "hosts"), ["a,\nb\nc"]);
    assert_eq!(sample.get("DEFAULT", "log_dir"), ["/var/log"]);
    assert_eq!(sample.get("database", "backend"), ["y"]);
    assert!(sample.get("database", "debug").is_empty() && sample.has_section("empty") && !sample.has_section("none"));
    assert_eq!(parsed("a=1\n[s]\na=2\n[s]\na = 3\n").get("s", "a"), ["2", "3"]);
}

#[test]
fn a_value_is_changed_where_it_stands() {
    let text = set(SAMPLE, "DEFAULT", "log_dir", &["/tmp"]);
    assert_eq!(text, SAMPLE.replace("log_dir=/var/log", "log_dir=/tmp"));
    let text = set(SAMPLE, "database", "backend", &["z"]);
    assert_eq!(text, SAMPLE.replace("    backend: y", "    backend: z"));
    let text = set(SAMPLE, "DEFAULT", "hosts", &["a\nb"]);
    assert_eq!(text, SAMPLE.replace("a,\n    b\n  # between\n    c\n", "a\n    b\n"));
    assert_eq!(set("[a]\r\nb = c\r\n", "a", "b", &["d"]), "[a]\r\nb = d\r\n");
    assert_eq!(set("[m]\nskip\nx = 1\n", "m", "skip", &["1"]), "[m]\nskip = 1\nx = 1\n");
    assert_eq!(set("[m]\nx = 1\n", "m", "x", &[""]), "[m]\nx =\n");
    assert_eq!(set("[m]\nx =\n", "m", "x", &["1"]), "[m]\nx = 1\n");
}

#[test]
fn a_new_option_finds_its_place() {
    // After the comment that shows it, in the file's own style.
    let text = set(SAMPLE, "DEFAULT", "debug", &["true"]);
    assert_eq!(text, SAMPLE.replace("#debug = false\n", "#debug = false\ndebug=true\n"));
    let text = set(SAMPLE, "DEFAULT", "new", &["1"]);
    assert_eq!(text, SAMPLE.replace("    c\n", "    c\nnew=1\n"));
    assert_eq!(set(SAMPLE, "empty", "new", &["1"]), format!("{SAMPLE}new=1\n"));
    assert_eq!(set(SAMPLE, "fresh", "new", &["1"]), format!("{SAMPLE}\n[fresh]\nnew=1\n"));
    assert_eq!(set("", "a", "b", &["c"]), "[a]\nb = c\n");
    assert_eq!(set("x = y", "a", "b", &["c"]), "x = y\n\n[a]\nb = c\n");
    assert_eq!(set("[a]\nb = c\n", "", "x", &["y"]), "x = y\n[a]\nb = c\n");
}

#[test]
fn an_indented_option_is_an_option() {
    // MySQL: spaces before a name mean nothing.
    let mysql = "[mysqld]\nport = 3306\n  socket = /run/x\nuser = mysql\n";
    assert_eq!(parsed(mysql).get("mysqld", "port"), ["3306"]);
    assert_eq!(parsed(mysql).get("mysqld", "socket"), ["/run/x"]);
    assert_eq!(set(mysql, "mysqld", "port", &["1"]), mysql.replace("3306", "1"));
    assert_eq!(set(mysql, "mysqld", "socket", &["/y"]), mysql.replace("/run/x", "/y"));
    // Samba: options are indented, some deeper, and names have spaces. A new one is indented like its neighbour, so that what
    // comes after it is not read as the rest of its value.
    let samba = "[global]\n\n## Browsing ##\n\n   workgroup = W\n\n#   wins support = no\n   map to guest = bad user\n      server string = %h\n";
    assert_eq!(parsed(samba).get("global", "server string"), ["%h"]);
    assert_eq!(set(samba, "global", "server string", &["x"]), samba.replace("%h", "x"));
    assert_eq!(
        set(samba, "global", "wins support", &["yes"]),
        samba.replace("support = no\n", "support = no\n   wins support = yes\n")
    );
    assert_eq!(set(samba, "global", "new", &["1"]), format!("{samba}      new = 1\n"));
    let colons = "[a]\nx: 1\n  y: 2\n";
    assert_eq!(parsed(colons).get("a", "y"), ["2"]);
}

#[test]
fn a_continued_value_may_look_like_options() {
    for (text, value) in [
        ("[a]\nscripts =\n    run = app:main\n    stop = app:stop\n", "run = app:main\nstop = app:stop"),
        ("[a]\nscripts = ('x',\n    level=3)\n", "('x',\nlevel=3)"),
        ("[a]\nscripts = one \\\n    two = 2\n", "one \\\ntwo = 2"),
        ("[a]\nscripts = a==1\n    b==2\n    c>=3\n", "a==1\nb==2\nc>=3"),
        ("[a]\nscripts = http://a:80\n    http://b:80/?x=y\n", "http://a:80\nhttp://b:80/?x=y"),
        ("[a]\nscripts = one\n    two\n", "one\ntwo"),
    ] {
        assert_eq!(parsed(text).get("a", "scripts"), [value], "{text}");
        assert_eq!(set(text, "a", "scripts", &["new"]), "[a]\nscripts = new\n");
    }
}

#[test]
fn each_line_keeps_its_line_break() {
    let mixed = "[a]\r\nb = 1\nc = 2\r\n[d]\ne = 3";
    assert_eq!(parsed(mixed).text(), mixed);
    assert_eq!(set(mixed, "a", "b", &["x"]), mixed.replace('1', "x"));
    assert_eq!(set(mixed, "a", "c", &["x"]), mixed.replace('2', "x"));
    assert_eq!(set(mixed, "a", "f", &["x"]), mixed.replace("2\r\n", "2\r\nf = x\r\n"));
    assert_eq!(set(mixed, "d", "e", &["x"]), mixed.replace('3', "x"));
    assert_eq!(set(mixed, "d", "f", &["x"]), format!("{mixed}\nf = x\n"));
}

#[test]
fn an_option_may_be_repeated() {
    let text = "[a]\nm = 1\nother = x\nm = 2\n";
    assert_eq!(set(text, "a", "m", &["1", "2", "3"]), "[a]\nm = 1\nother = x\nm = 2\nm = 3\n");
    assert_eq!(set(text, "a", "m", &["2"]), "[a]\nm = 2\nother = x\n");
    assert_eq!(set(text, "a", "m", &[]), "[a]\nother = x\n");
}

#[test]
fn sections_go_and_come_back() {
    let mut document = parsed(SAMPLE);
    let [(text, spot)] = &document.cut("database")[..] else { panic!("it has one part") };
    assert_eq!(text, "[database]\n    connection = x\n    backend: y\n");
    assert_eq!(document.text(), SAMPLE.replace(text, ""));
    document.paste(text, spot).unwrap();
    assert_eq!(document.text(), SAMPLE);
    // Where the sections around it are others by now: at the end of one that is left, else at the end.
    for (text, expect) in [("[x]\n[empty]\n", "[x]\n[d]\n[empty]\n"), ("[y]\n[x]\n", "[y]\n[x]\n[d]\n")] {
        let mut document = parsed(text);
        document.paste("[d]\n", spot).unwrap();
        assert_eq!(document.text(), expect);
    }
    let mut document = parsed(&set(SAMPLE, "fresh", "new", &["1"]));
    document.cut_if_empty("fresh");
    assert!(document.has_section("fresh"));
    document.set("fresh", "new", &[]);
    document.cut_if_empty("fresh");
    assert_eq!(document.text(), SAMPLE);
}

#[test]
fn a_text_that_is_no_ini_file_is_refused_with_its_line() {
    for (text, fault) in [
        ("[a]\nb = c\n[open\n", "line 3: the section's header is not closed: `[open`"),
        ("[a] b\n", "line 1: there is text after the section's header: `b`"),
        ("[]\n", "line 1: the section has no name"),
        ("[a]\nthis is no option\n", "line 2: has neither `=` nor `:`: `this is no option`"),
        ("[a]\n= x\n", "line 2: has no name before its value: `= x`"),
        ("[a]\n  loose\n", "line 2: is indented and continues nothing: `loose`"),
        ("a\0b = c", "line 1: contains a NUL byte"),
    ] {
        assert_eq!(Document::parse(text).unwrap_err().to_string(), fault);
    }
}
