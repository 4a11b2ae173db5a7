//! The text of a scenario: sections that begin with `=== name`, after a comment.
//!
//! | section | holds |
//! |---|---|
//! | `before` | the files of the site that is applied, each after `--- path`; without it, nothing is applied anywhere |
//! | `after` | files that the change adds or replaces; `--- path removed` removes one |
//! | `older` | files that differ from `before` in an older commit, which some node is still at |
//! | `knowledge before`, `knowledge` | what is known of nodes: `facts n1 {json}`, `export db.address@n1 text`, `present n1`, `elected db.seed@n1`, and `runs db.seed@n1`, which is elected and has not given it up; the second replaces the first |
//! | `applied` | how nodes differ from what `before` says, see `world.rs` |
//! | `check` | what is to be checked again: `recheck app.config@n1`, `drifted app.config@n1: content differs` |
//! | `forget` | what records are to be dropped, each with a reason: `app.config@n1 no longer needed` |
//! | `parked`, `next parked`, `then parked` | the nodes that an operator has parked, beside those of the inventory |
//! | `plan` | expected: the actions in order, each with its chain of reasons |
//! | `pending`, `waits`, `gates` | expected, where given: what cannot be planned, what each task waits for, what opens each gate |
//! | `rollout` | commands that begin with `> `, and after each what came of it, see `rollout.rs` |
//! | `next`, `next knowledge` | a newer commit that supersedes the rollout |
//! | `next plan`, `next waits`, `next rollout` | expected: as above |
//! | `then`, `then knowledge`, `then plan`, `then waits`, `then rollout` | a commit after that one, in the same way |

/// Sections that hold input.
const INPUT: [&str; 15] = [
    "before",
    "after",
    "older",
    "knowledge before",
    "knowledge",
    "applied",
    "check",
    "forget",
    "parked",
    "next parked",
    "then parked",
    "next",
    "next knowledge",
    "then",
    "then knowledge",
];

/// A scenario, section by section.
pub(crate) struct Scenario {
    /// The file's name, for messages.
    pub(crate) name: String,
    comment: String,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    body: String,
    /// Whether it is an input, or was compared.
    used: bool,
}

impl Scenario {
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut parts = format!("\n{text}").split("\n=== ").map(str::to_owned).collect::<Vec<_>>().into_iter();
        let comment = parts.next().unwrap_or_default().trim_start_matches('\n').to_owned();
        assert!(comment.starts_with("# "), "{name} does not begin with a comment that says what it shows");
        let section = |part: String| {
            let (title, body) = part.split_once('\n').unwrap_or((&part, ""));
            let used = INPUT.contains(&title);
            Section { title: title.to_owned(), body: body.trim_end().to_owned(), used }
        };
        Self { name: name.to_owned(), comment: comment.trim_end().to_owned(), sections: parts.map(section).collect() }
    }

    /// The text of a section.
    pub(crate) fn section(&self, title: &str) -> Option<String> {
        self.sections.iter().find(|section| section.title == title).map(|section| section.body.clone())
    }

    /// Puts what came out in the place of a section, which is added if it is not there.
    pub(crate) fn expect(&mut self, title: &str, found: &str) {
        if self.section(title).is_none() {
            self.sections.push(Section { title: title.to_owned(), body: String::new(), used: true });
        }
        self.expect_if_given(title, found);
    }

    /// Puts what came out in the place of a section, if it is there.
    pub(crate) fn expect_if_given(&mut self, title: &str, found: &str) {
        if let Some(section) = self.sections.iter_mut().find(|section| section.title == title) {
            section.body = found.trim_end().to_owned();
            section.used = true;
        }
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        let mut out = self.comment;
        for Section { title, body, used } in self.sections {
            assert!(used, "{}: nothing is known of a section `{title}`", self.name);
            out += format!("\n\n=== {title}\n{body}").trim_end();
        }
        out + "\n"
    }
}
