//! Which of several copies of a log is brought back.

use super::{
    choose::{Choice, Found, Unusable, choose},
    survey::{LogSurvey, read},
};
use crate::{
    objstore::{self, Bucket},
    wal::layout::Generation,
};

/// What came of choosing among the copies of a log.
#[derive(Debug, Default)]
pub struct Best {
    /// The newest copy that lacks nothing, or else the newest that is of use, with what is known of it.
    pub chosen: Option<(Choice, Found)>,
    /// Newer copies that were passed over, and why.
    pub passed_over: Vec<(Generation, Unusable)>,
}

impl LogSurvey {
    /// Chooses among the copies of the log. What was once durable is in the newest copy that has reached the end of the log and
    /// lacks nothing: a newer one may only have been begun, or after samples were sealed whose block never reached the bucket.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn best(&self, bucket: &dyn Bucket, until_ms: Option<i64>) -> Result<Best, objstore::Error> {
        let mut best = Best::default();
        for (generation, manifest) in &self.generations {
            let found = read(bucket, generation, manifest).await?;
            match choose(&found, &self.blocks, until_ms) {
                Ok(choice) if choice.missing_ms.is_none() && !choice.is_uncertain => {
                    if let Some((newer, found)) = best.chosen.take() {
                        let why = match newer.missing_ms {
                            Some(missing_ms) => Unusable::Lacks(missing_ms, newer.reaches_ms),
                            None => Unusable::Begun(newer.reaches_ms),
                        };
                        best.passed_over.push((found.generation, why));
                    }
                    best.chosen = Some((choice, found));
                    break;
                }
                Ok(choice) if best.chosen.is_none() => best.chosen = Some((choice, found)),
                Ok(_) => {}
                Err(why) => best.passed_over.push((found.generation, why)),
            }
        }
        Ok(best)
    }
}
