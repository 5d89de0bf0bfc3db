//! Which tests show which translation rule: by the rule's id in the test's name.
//!
//! Only tests that ran count, as the runner itself names them: one that was filtered out or
//! ignored shows nothing.

mod table;

use std::fmt;

pub use table::RULES;

/// A translation rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// A letter for the part and a number within it.
    pub id: &'static str,
    /// What it asks for, in short.
    pub text: &'static str,
    /// Why it isn't followed yet.
    pub pending: Option<&'static str>,
}

impl Rule {
    const fn tested(id: &'static str, text: &'static str) -> Self {
        Self { id, text, pending: None }
    }

    #[cfg_attr(not(test), expect(dead_code, reason = "for rules to come: none is pending now"))]
    const fn pending(id: &'static str, text: &'static str, why: &'static str) -> Self {
        Self { id, text, pending: Some(why) }
    }

    /// Whether a test's name has the id in lower case as one of its words.
    fn is_in(&self, test: &str) -> bool {
        let function = test.rsplit("::").next().unwrap_or(test);
        function.split('_').any(|word| word == self.id.to_lowercase())
    }
}

/// The rules with the tests that show them.
#[derive(Clone, Debug)]
pub struct Coverage<'a> {
    rows: Vec<(Rule, Vec<&'a str>)>,
}

impl<'a> Coverage<'a> {
    /// Looks for the rules in the names of the tests that ran.
    pub fn new(rules: &[Rule], ran: &'a [String]) -> Self {
        let shown = |rule: &Rule| -> Vec<&'a str> {
            ran.iter().map(String::as_str).filter(|test| rule.is_in(test)).collect()
        };
        Self { rows: rules.iter().map(|rule| (*rule, shown(rule))).collect() }
    }

    /// The rows that aren't as the table says: no test, or one for a rule that is said to be pending.
    pub fn mistakes(&self) -> Vec<String> {
        let mistake = |(rule, tests): &(Rule, Vec<&str>)| match (rule.pending, tests.as_slice()) {
            (None, []) => Some(format!("rule {} has no test: {}", rule.id, rule.text)),
            (Some(_), [test, ..]) => {
                Some(format!("rule {} is marked as pending, but {test} shows it", rule.id))
            }
            _ => None,
        };
        self.rows.iter().filter_map(mistake).collect()
    }
}

impl fmt::Display for Coverage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, tests) in &self.rows {
            writeln!(f, "{:>4}  {}", rule.id, rule.text)?;
            if let Some(why) = rule.pending {
                writeln!(f, "        pending: {why}")?;
            }
            for test in tests {
                writeln!(f, "        {test}")?;
            }
        }
        Ok(())
    }
}

/// Reads off a test runner's output which tests ran.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    /// A test whose outcome stands on a later line: something else wrote to the terminal meanwhile.
    open: Option<String>,
    ran: Vec<String>,
}

impl Runner {
    /// Takes in a line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let named = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let Some((name, outcome)) = named else {
            if is_outcome(line) {
                self.ran.extend(self.open.take());
            }
            return;
        };
        let name = name.trim_end_matches(" - should panic");
        self.open = None;
        // Examples in documentation are no functions; their names have spaces.
        if name.contains(' ') || outcome.starts_with("ignored") {
            return;
        }
        if is_outcome(outcome) {
            self.ran.push(name.to_owned());
        } else {
            self.open = Some(name.to_owned());
        }
    }

    /// The tests that ran, whatever came of them.
    pub fn into_tests(self) -> Vec<String> {
        self.ran
    }
}

fn is_outcome(text: &str) -> bool {
    text.ends_with("ok") || text.ends_with("FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(output: &str) -> Vec<String> {
        let mut runner = Runner::default();
        output.lines().for_each(|line| runner.line(line));
        runner.into_tests()
    }

    fn mistakes(rules: &[Rule], tests: &[&str]) -> Vec<String> {
        let tests: Vec<String> = tests.iter().map(|&test| test.to_owned()).collect();
        Coverage::new(rules, &tests).mistakes()
    }

    const DONE: Rule = Rule::tested("H1", "done");
    const OPEN: Rule = Rule::pending("H2", "open", "later");

    #[test]
    fn a_rule_needs_a_test_with_its_id_as_a_word() {
        assert!(mistakes(&[DONE], &["udp::g1_h1_lengths"]).is_empty());
        assert!(mistakes(&[DONE], &["lengths_h1"]).is_empty());
        for other in
            [&["h12_lengths"][..], &["h1::lengths"], &["sh1_lengths"], &["H1_lengths"], &[]]
        {
            assert_eq!(mistakes(&[DONE], other), ["rule H1 has no test: done"], "{other:?}");
        }
    }

    #[test]
    fn a_pending_rule_has_none() {
        assert!(mistakes(&[OPEN], &["h1_lengths"]).is_empty());
        let expected = "rule H2 is marked as pending, but tests::h1_h2_lengths shows it";
        assert_eq!(mistakes(&[DONE, OPEN], &["tests::h1_h2_lengths"]), [expected]);
    }

    #[test]
    fn the_map_names_rules_reasons_and_tests() {
        let tests = ["a::h1_one".to_owned(), "b::h1_two".to_owned()];
        let map = Coverage::new(&[DONE, OPEN], &tests).to_string();
        let lines: Vec<&str> = map.lines().map(str::trim).collect();
        assert_eq!(lines, ["H1  done", "a::h1_one", "b::h1_two", "H2  open", "pending: later"]);
    }

    #[test]
    fn tests_that_ran_are_read_off_the_runners_output() {
        let output = "
running 7 tests
test decide::h1_one ... ok
test decide::h2_two ... FAILED
test h3_three - should panic ... ok
test h4_four ... ignored
test h5_five ... ignored, because it's not ok
test publisher-common/src/lib.rs - h6_six (line 3) ... ok
test h7_seven ... a child wrote this
ok
test result: ok. 3 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.10s
";
        assert_eq!(ran(output), ["decide::h1_one", "decide::h2_two", "h3_three", "h7_seven"]);
    }

    #[test]
    fn a_test_that_never_ended_did_not_run() {
        assert!(ran("test h1_one ... error: aborted\nrunning 3 tests\n").is_empty());
        assert_eq!(ran("test h1_one ... \ntest h2_two ... ok\n"), ["h2_two"]);
    }

    #[test]
    fn every_rule_of_the_table_stands_there_once() {
        let parts = [('H', 1..=13), ('G', 1..=12), ('I', 1..=14), ('S', 1..=20)];
        let expected = parts
            .into_iter()
            .flat_map(|(letter, numbers)| numbers.map(move |number| format!("{letter}{number}")));
        assert!(RULES.iter().map(|rule| rule.id).eq(expected));
        assert!(RULES.iter().all(|rule| !rule.text.is_empty() && rule.pending != Some("")));
    }
}
