use super::*;

const FILE: &str = "a.toml";

fn at(span: Range<usize>) -> Location {
    Location::new(FILE.into(), span)
}

fn shown(bytes: &[u8], diagnostics: &[Diagnostic]) -> String {
    let bytes: Arc<[u8]> = bytes.into();
    let texts = move |path: &str| (path == FILE).then(|| bytes.clone());
    to_json(diagnostics, &texts);
    render(diagnostics, &texts, true);
    render(diagnostics, &texts, false)
}

fn position(bytes: &[u8], offset: usize) -> (usize, usize) {
    Text::new(bytes).position(offset)
}

#[test]
fn a_diagnostic_shows_its_line_related_places_and_hint() {
    let text = b"[nodes.a]\naddress = \"x\"\n\n[nodes.b]\naddress = 5\n";
    let fault = Diagnostic::new(at(45..46), "`address` must be text").label("a number");
    let fault = fault.related(at(20..23), "as here").hint("put it in quotes");
    let whole = Diagnostic::new(Location::file("services/x/service.toml"), "there is none");
    insta::assert_snapshot!(shown(text, &[whole, fault.clone(), fault]));
}

#[test]
fn columns_count_characters() {
    assert_eq!(position("a\r\nü = ö".as_bytes(), 8), (2, 5));
    assert_eq!(position(b"a\n\xff\xfe = 1", 5), (2, 4));
    assert_eq!(position(b"", 7), (1, 1));
    assert_eq!(position(b"a\n", 2), (2, 1));
}

#[test]
fn a_terminal_acts_on_nothing_of_a_file() {
    // CSI as one character, which some terminals take for an escape, and one that turns the direction of what follows.
    let text = "a = '\u{9b}31m\u{202e}\u{61c}\x1b[2J'\n";
    let fault = Diagnostic::new(at(0..1), "wrong \u{202e}").label("here\u{9b}");
    let shown = shown(text.as_bytes(), &[fault]);
    assert!(!shown.contains(is_hostile), "{shown:?}");
    assert!(shown.contains("a = '·31m\u{fffd}·"), "{shown}");
}

#[test]
fn no_diagnostics_are_no_text() {
    assert_eq!(shown(b"", &[]), "");
}

#[test]
fn any_place_in_any_bytes_can_be_shown() {
    let long = format!("x = \"{}ü\"\ny = 1", "a\t".repeat(50_000));
    let texts: [&[u8]; 9] = [
        b"",
        b"\n",
        b"\r\n\r\n",
        b"a = 1\r\nb = 2\r\n",
        "ключ = \"значение\"\n日本 = '語'\n\u{feff}\u{200d}👩‍👩‍👧".as_bytes(),
        b"\xff\xfe\n\xf0\x9f = 1\n\x00\x1b[31m",
        b"\ta\t=\t1",
        long.as_bytes(),
        b"a\x0b\x0c\xe2\x80\xa8b",
    ];
    for text in texts {
        let step = (text.len() / 40).max(1) * if text.len() > 1000 { 10 } else { 1 };
        for start in (0..text.len() + 3).step_by(step) {
            for length in [0, 1, 2, 7, 100_000] {
                let fault = Diagnostic::new(at(start..start + length), "m").label("l").hint("h");
                shown(text, &[fault.related(at(length..start), "r").related(at(0..start), "s")]);
            }
        }
    }
    let cut = shown(long.as_bytes(), &[Diagnostic::new(at(60_000..60_010), "m")]);
    assert!(cut.len() < 2000, "{}", cut.len());
}
