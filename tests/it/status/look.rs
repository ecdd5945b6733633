//! How the page looks in a real Chromium: in both colour schemes, on a desk and on a phone, with much, little and nothing to
//! show. A picture of each is left in `target/screenshots`.

use serde_json::json;

use super::{SOON, quiet, states, status_when};
use crate::rig::{
    Browser, BucketView, Prometheus, Sidecar, Tools, blocks,
    prometheus::{Options, sealed},
    tools::temp_dir,
};

/// Widths of a window, in points: a desk, and a phone.
const WIDTHS: [(&str, u32); 2] = [("wide", 1280), ("phone", 390)];

/// What is wrong with how a page looks: it is wider than its window; a text is cut off or stands outside; a text cannot be
/// told well from its background (WCAG 2.1 asks for a contrast of 4.5 to 1); something was loaded beside the page.
const FAULTS: &str = r#"
  const faults = [];
  const channels = text => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => {
    const part = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) faults.push(`the page is ${wide} wider than its window`);
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const text = element.textContent.trim().slice(0, 60), style = getComputedStyle(element);
    const [a, b] = [luminance(channels(style.color)), luminance(background(element))].sort((a, b) => b - a);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${text}`);
    if (parseFloat(style.fontSize) < 11) faults.push(`small, ${style.fontSize}: ${text}`);
    const box = element.getBoundingClientRect();
    if (!element.closest('.scroll') && (box.right > innerWidth + 1 || box.left < 0)) faults.push(`outside: ${text}`);
  }
  if (document.scripts.length) faults.push('there is a script');
  for (const loaded of performance.getEntriesByType('resource')) {
    if (!loaded.name.startsWith('data:')) faults.push(`loaded ${loaded.name}`);
  }
  return faults;
"#;

/// The luminance of the page's background, from 0 to 255.
const BACKGROUND: &str = r#"
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
  return (r + g + b) / 3;
"#;

/// Looks at the page in every way, and leaves pictures.
async fn look(browser: &Browser, sidecar: &Sidecar, name: &str) {
    for (place, width) in WIDTHS {
        for dark in [false, true] {
            browser.set_view(width, dark).await;
            browser.open(&sidecar.url()).await;
            let scheme = if dark { "dark" } else { "light" };
            browser.picture(&format!("{name}-{place}-{scheme}")).await;
            let faults = browser.evaluate(FAULTS).await;
            assert_eq!(faults, json!([]), "{name} {place} {scheme}");
            let background = browser.evaluate(BACKGROUND).await.as_f64().unwrap();
            assert_eq!(background < 128.0, dark, "{name} {place}: {background}");
        }
    }
}

async fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let script = format!("return [...document.querySelectorAll({selector:?})].map(found => found.textContent.trim())");
    let texts = browser.evaluate(&script).await;
    texts
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_busy_sidecar() {
    let (prometheus, bucket) = (quiet().await, temp_dir("bucket"));
    for slot in 0..3 {
        blocks::place(&blocks::generate(blocks::Spec::small(slot)), prometheus.data());
    }
    let broken = blocks::copy_without_index(&blocks::generate(blocks::Spec::small(1)), prometheus.data());
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config()));
    status_when(&sidecar, "all but one are durable", |status| {
        let states = states(status);
        states.contains(&"set_aside") && states.iter().filter(|state| **state == "durable").count() == 3
    })
    .await;
    let browser = Browser::start().await;
    look(&browser, &sidecar, "busy").await;
    assert_eq!(texts(&browser, "h1").await, ["narthex"]);
    // Who looks sees first what is wrong.
    assert_eq!(texts(&browser, ".summary .big").await[0], "Blocks need your attention");
    assert_eq!(texts(&browser, "tbody tr:first-child td:first-child").await[0], broken);
    let bars = browser
        .evaluate("return document.querySelectorAll('.bar').length")
        .await;
    assert_eq!(bars, 4);
}

#[tokio::test]
async fn five_hundred_blocks_and_a_prometheus_that_is_gone() {
    let spec = blocks::Spec {
        series: 1,
        samples: 1000,
        step: 3600,
        slot: 0,
    };
    let many = blocks::generate_all(spec);
    let options = Options {
        block: "2h",
        ..Options::default()
    };
    let (prometheus, bucket) = (Prometheus::start(&Tools::newest(), options).await, temp_dir("bucket"));
    let dir = temp_dir("data");
    let ids = sealed(&many);
    assert_eq!(ids.len(), 500);
    for id in &ids {
        blocks::place(&many.join(id), dir.path());
    }
    let mut flags = Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config());
    flags.push(format!("--tsdb.path={}", dir.path().display()));
    flags.remove(1);
    let sidecar = Sidecar::start(flags);
    status_when(&sidecar, "all are seen, and some are durable", |status| {
        let states = states(status);
        states.len() == 500 && states.contains(&"durable")
    })
    .await;
    let browser = Browser::start().await;
    look(&browser, &sidecar, "500-blocks").await;
    // Not those of the uploads, of which there are some or none.
    let shown = "const blocks = [...document.querySelectorAll('section')].find(section => \
                 section.querySelector('h2')?.textContent == 'Blocks'); \
                 return [...blocks.querySelectorAll('tbody tr')].filter(row => row.checkVisibility()).length";
    assert_eq!(browser.evaluate(shown).await, 20);
    browser
        .evaluate("for (const more of document.querySelectorAll('details')) more.open = true")
        .await;
    assert_eq!(browser.evaluate(shown).await, 500);
    assert_eq!(browser.evaluate(FAULTS).await, json!([]), "with all of them open");
    prometheus.kill();
    status_when(&sidecar, "Prometheus is seen to be gone", |status| {
        status["prometheus"]["up"] == false
    })
    .await;
    look(&browser, &sidecar, "broken").await;
    assert_eq!(texts(&browser, "header .pill").await, ["not ready"]);
    assert!(texts(&browser, "header .reason").await[0].contains("connection refused"));
}

#[tokio::test]
async fn nothing_yet() {
    let (prometheus, bucket) = (quiet().await, temp_dir("bucket"));
    let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &BucketView::dir(bucket.path()).config()));
    sidecar.wait_ready(SOON).await;
    status_when(&sidecar, "it has looked", |status| {
        status["shipping"]["looked_at_ms"] != 0
    })
    .await;
    let browser = Browser::start().await;
    look(&browser, &sidecar, "none").await;
    assert_eq!(
        texts(&browser, ".summary .big").await[0],
        "There are no sealed blocks yet"
    );
    assert!(
        texts(&browser, "p.none")
            .await
            .iter()
            .any(|text| text.starts_with("There is no block"))
    );
    let without = Sidecar::start(vec![format!("--prometheus.url={}", prometheus.url())]);
    without.wait_ready(SOON).await;
    look(&browser, &without, "no-bucket").await;
    assert_eq!(texts(&browser, ".summary .big").await[0], "No blocks are shipped");
}
