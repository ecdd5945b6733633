//! The findings as they are printed.

use serde_json::{Value, json};

use crate::{
    cmd::output::{Table, counted, printable},
    preflight::{self, Finding, Verdict},
};

/// The version of the JSON document.
const VERSION: u64 = 1;

/// A line for each finding, with what to do below what is not good, and a last one with their numbers.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut table = Table::new(&["VERDICT", "CHECK", "FOUND"]);
    for finding in findings {
        let cells = [finding.verdict.as_str(), finding.check.name, &printable(&finding.text)];
        table.row(cells.map(str::to_owned).to_vec());
        if finding.verdict != Verdict::Ok {
            let fix = format!("fix: {}", finding.check.fix);
            table.row(vec![String::new(), String::new(), fix]);
        }
    }
    let number = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    format!(
        "{table}\n{}: {} failed, {}, {} ok\n",
        preflight::verdict(findings).as_str(),
        counted(number(Verdict::Fail), "check"),
        counted(number(Verdict::Warn), "warning"),
        number(Verdict::Ok),
    )
}

/// The same for programs.
pub(super) fn json(findings: &[Finding]) -> Value {
    let listed = findings.iter().map(|finding| {
        let mut listed = json!({
            "check": finding.check.name, "verdict": finding.verdict.as_str(), "text": finding.text,
        });
        if finding.verdict != Verdict::Ok {
            listed["fix"] = finding.check.fix.into();
        }
        listed
    });
    json!({
        "version": VERSION,
        "verdict": preflight::verdict(findings).as_str(),
        "findings": listed.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::table::{BUCKET_LIST, BUCKET_PUT};

    #[test]
    fn what_is_not_good_is_shown_with_what_to_do() {
        let findings = [
            Finding::ok(&BUCKET_LIST, "listed"),
            Finding::fail(&BUCKET_PUT, "refused\u{1b}[31m"),
        ];
        let text = text(&findings);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            &lines[..3],
            [
                "VERDICT  CHECK        FOUND",
                "ok       bucket.list  listed",
                "fail     bucket.put   refused\\u{1b}[31m"
            ]
        );
        assert!(lines[3].trim_start().starts_with("fix: grant s3:PutObject"), "{text}");
        assert_eq!(lines.last(), Some(&"fail: 1 check failed, 0 warnings, 1 ok"));
        let json = json(&findings);
        assert_eq!(json["verdict"], "fail");
        assert_eq!(
            json["findings"][0],
            json!({"check": "bucket.list", "verdict": "ok", "text": "listed"})
        );
        assert_eq!(json["findings"][1]["fix"], BUCKET_PUT.fix);
    }
}
