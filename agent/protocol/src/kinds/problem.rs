//! Faults in parameters, and the checks that several kinds share.

/// A fault in one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The parameter's name; empty for the task as a whole.
    pub param: &'static str,
    /// What is wrong with it, as it follows the parameter's name.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(param: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { param, message: message.into(), hint: Some(hint.into()) }
    }
}

/// Checks that `path` is absolute and in its shortest form, so that one file has one name.
pub(super) fn path_problem(param: &'static str, path: &str) -> Option<Problem> {
    let plain = path.strip_prefix('/').is_some_and(|rest| {
        !rest.is_empty() && !rest.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    (!plain).then(|| {
        Problem::new(
            param,
            format!("`{}` is not an absolute path in its shortest form", path.escape_default()),
            "begin with `/`, without `.`, `..`, doubled or trailing slashes",
        )
    })
}

/// Checks that `mode` is an octal file mode.
pub(super) fn mode_problem(mode: Option<&String>) -> Option<Problem> {
    parse_mode(mode?).is_none().then(|| {
        Problem::new(
            "mode",
            format!("`{}` is not a file mode", mode.map_or("", |m| m)),
            "give three or four octal digits in quotes, such as \"0640\"",
        )
    })
}

/// The permission bits of a mode of three or four octal digits (chmod(1)).
pub fn parse_mode(mode: &str) -> Option<u32> {
    let octal = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| (b'0'..=b'7').contains(&b));
    octal.then(|| u32::from_str_radix(mode, 8).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        for good in ["/a", "/etc/x.conf", "/a/..b/.c"] {
            assert_eq!(path_problem("path", good), None, "{good}");
        }
        for bad in ["", "/", "a", "a/b", "/a/", "//a", "/a//b", "/a/../b", "/./a", "/a\0b"] {
            assert!(path_problem("path", bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0640"), Some(0o640));
        assert_eq!(parse_mode("755"), Some(0o755));
        for bad in ["", "7", "0888", "rw", "00755", "+75"] {
            assert_eq!(parse_mode(bad), None, "{bad}");
        }
    }
}
