//! Each way to find series is chosen where it is due, and finds the same.

use Op::{Equal, NotEqual, NotRegex, Regex};

use super::{
    super::{choose::choose, index::IndexReader, postings::Postings},
    *,
};
use crate::tsdb::window::WIDTH;

/// Name, how it is compared, and with what.
type Condition<'a> = (&'a str, Op, &'a str);

/// 400 series: all of one name, each of an `id`, by ten of one `tens`, half of them odd, two of them rare.
fn series() -> Vec<MadeSeries> {
    let one = |at: i64| {
        let (id, tens, odd) = (format!("{at:03}"), (at % 40).to_string(), (at % 2).to_string());
        let mut labels = vec![("__name__", "m"), ("id", &id), ("tens", &tens), ("odd", &odd)];
        labels.extend([5, 7].contains(&at).then_some(("rare", "r")));
        MadeSeries::new(&labels, vec![chunk(at, at + 9)])
    };
    (0..400).map(one).collect()
}

/// How the series are found: the lists, and how many conditions each series is held against.
fn choice(opened: &Opened, matchers: &[Matcher]) -> Option<(String, usize)> {
    let block = &opened.block;
    let mut index = IndexReader::new(&block.index, &block.tables, WIDTH, &Progress::default());
    let choice = choose(&mut index, &Selector::new(matchers).unwrap()).unwrap()?;
    Some((kind(&choice.postings), choice.filters.len()))
}

fn kind(postings: &Postings) -> String {
    match postings {
        Postings::List(_) => "list".to_owned(),
        Postings::Union(_) => "union".to_owned(),
        Postings::Intersection(all) => all.iter().map(kind).collect::<Vec<_>>().join(" and "),
    }
}

#[test]
fn short_lists_are_read_and_the_rest_is_looked_at() {
    let series = series();
    let opened = open_series(&series);
    let due = |kind: &str, filters| Some((kind.to_owned(), filters));
    let cases: Vec<(&[Condition], _)> = vec![
        (&[], due("list", 0)),
        (&[("__name__", Equal, "m")], due("list", 0)),
        // A list of 400 beside one of 2, of 200 beside 10 and beside 20.
        (&[("__name__", Equal, "m"), ("rare", Equal, "r")], due("list", 1)),
        (&[("tens", Equal, "5"), ("odd", Equal, "1")], due("list", 1)),
        (&[("tens", Regex, "5|7"), ("odd", Equal, "1")], due("union and list", 0)),
        (&[("tens", Regex, "5|7"), ("odd", Equal, "0")], due("union and list", 0)),
        // Fewer values than series: 11 of them pass, all of them pass, all but one.
        (&[("tens", Regex, "1.*")], due("union", 0)),
        (&[("tens", NotEqual, "")], due("union", 0)),
        (&[("tens", NotRegex, "|1.*")], due("union", 0)),
        (&[("rare", Regex, ".+")], due("list", 0)),
        // As many values as series.
        (&[("id", Regex, ".+")], due("list", 1)),
        (&[("tens", Regex, ".+"), ("rare", Equal, "r")], due("list", 1)),
        // Series without the label pass.
        (&[("rare", NotEqual, "r")], due("list", 1)),
        (&[("rare", Equal, "")], due("list", 1)),
        (&[("rare", Regex, "r|")], due("list", 1)),
        (&[("rare", NotRegex, "r.*"), ("tens", Equal, "5")], due("list", 1)),
        // No series has the label, or none the value.
        (&[("nope", NotEqual, "x"), ("nope", Equal, "")], due("list", 0)),
        (&[("nope", Equal, "x")], None),
        (&[("nope", Regex, ".+"), ("tens", Equal, "5")], None),
        (&[("tens", Equal, "nope")], None),
        (&[("tens", Equal, "5"), ("tens", Regex, "nope.*")], due("list", 1)),
        (&[("odd", Regex, "nope.*")], None),
        (&[("odd", Equal, "0"), ("rare", Equal, "r")], due("list", 1)),
    ];
    for (conditions, want) in cases {
        let matchers: Vec<Matcher> = conditions
            .iter()
            .map(|(name, op, value)| matcher(name, *op, value))
            .collect();
        assert_eq!(choice(&opened, &matchers), want, "{matchers:?}");
        assert_read(&opened, &series, &matchers);
    }
}

#[test]
fn more_lists_than_may_be_joined_are_a_look_at_each_series() {
    // 1100 values, each of two series.
    let one = |at: i64| {
        let (id, side) = (format!("v{:04}", at / 2), (at % 2).to_string());
        MadeSeries::new(&[("id", &id), ("side", &side)], vec![chunk(at, at)])
    };
    let series: Vec<MadeSeries> = (0..2200).map(one).collect();
    let opened = open_series(&series);
    let texts = |count: i64| {
        let texts: Vec<String> = (0..count).map(|at| format!("v{at:04}")).collect();
        texts.join("|")
    };
    for (op, value, want) in [
        (Regex, "v.*", ("list", 1)),
        (Regex, "v0.*", ("union", 0)),
        (Regex, &texts(1024), ("union", 0)),
        // Too many texts to be looked up, and few enough values that pass.
        (Regex, &(texts(500) + &"|nope".repeat(525)), ("union", 0)),
        (Regex, &texts(1025), ("list", 1)),
        (NotRegex, "|v0.*", ("union", 0)),
        (NotRegex, "|v10.*", ("union", 0)),
        (NotEqual, "", ("list", 1)),
    ] {
        let matchers = [matcher("id", op, value)];
        assert_eq!(choice(&opened, &matchers), Some((want.0.to_owned(), want.1)), "{value}");
        assert_read(&opened, &series, &matchers);
    }
}
