//! Forecasts from prompts, for the models that are served here: outside the scheduler's lock, on whatever task has the
//! request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use equipoise_fleet::ModelProfile;
use equipoise_policy::{Request, Target};
use equipoise_predict::{ArtifactError, Forecast, MAX_ARTIFACT_BYTES, Predictor, Roster};
use parking_lot::{Mutex, RwLock};

/// Which predictor reads the prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PredictorSource {
    /// The one that comes with the program.
    #[default]
    Embedded,
    /// None: models are as good as their operator declares, whatever is asked.
    Off,
    /// An artifact of `equipoise predictor train`.
    File(PathBuf),
}

impl FromStr for PredictorSource {
    type Err = std::convert::Infallible;

    /// `embedded`, `off`, or else a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "embedded" => Self::Embedded,
            "off" => Self::Off,
            path => Self::File(path.into()),
        })
    }
}

/// A predictor that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PredictorError {
    /// The file cannot be read.
    #[error(
        "the predictor {path} cannot be read: {source}; give a file of `equipoise predictor train`, `embedded` or `off`"
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no predictor, or a damaged one.
    #[error("{path} is no predictor that this program can use: {source}; train one with `equipoise predictor train`")]
    Artifact {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: ArtifactError,
    },
}

impl PredictorSource {
    fn load(&self) -> Result<Option<Predictor>, PredictorError> {
        let (path, predictor) = match self {
            Self::Off => return Ok(None),
            Self::Embedded => ("embedded".into(), Predictor::embedded()),
            Self::File(path) => (path.clone(), Predictor::from_bytes(&read(path)?)),
        };
        predictor
            .map(Some)
            .map_err(|source| PredictorError::Artifact { path, source })
    }
}

/// No more than an artifact may have, and one byte that shows that it has more.
fn read(path: &PathBuf) -> Result<Vec<u8>, PredictorError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_ARTIFACT_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| PredictorError::Read {
            path: path.clone(),
            source,
        })?;
    Ok(bytes)
}

/// The predictor with the models that are served here.
pub(crate) struct Forecaster {
    predictor: Option<Predictor>,
    /// Read by every request; changes with the fleet.
    roster: RwLock<Arc<Roster>>,
    /// What was declared of each model: what changes nothing is not said again.
    declared: Mutex<BTreeMap<String, Declared>>,
}

/// Of a declaration, what a forecast depends on.
#[derive(Debug, PartialEq)]
struct Declared {
    architecture: Option<String>,
    quality: Option<f64>,
}

impl Forecaster {
    pub(crate) fn new(source: &PredictorSource) -> Result<Self, PredictorError> {
        let predictor = source.load()?;
        Ok(Self {
            roster: RwLock::new(Arc::new(predictor.as_ref().map(Roster::new).unwrap_or_default())),
            predictor,
            declared: Mutex::default(),
        })
    }

    /// A model is served; says once how its quality is predicted.
    pub(crate) fn declare(&self, model: &ModelProfile) {
        let now = Declared {
            architecture: model.architecture.clone(),
            quality: model.quality,
        };
        let mut declared = self.declared.lock();
        if declared.get(&model.name) == Some(&now) {
            return;
        }
        declared.insert(model.name.clone(), now);
        let mut roster = Roster::clone(&self.roster.read());
        let known = roster.declare(&model.name, model.architecture.as_deref(), model.quality);
        match (known, model.quality) {
            (Some(known), _) => {
                tracing::info!(
                    model = model.name,
                    known_as = known,
                    "quality is forecast from each prompt"
                );
            }
            (None, Some(quality)) => {
                tracing::warn!(
                    model = model.name,
                    quality,
                    "quality is as declared for every prompt: the predictor does not know this model"
                );
            }
            (None, None) => {
                tracing::warn!(
                    model = model.name,
                    "quality is unknown and taken as 0.5: the predictor does not know this model; declare its `quality`"
                );
            }
        }
        *self.roster.write() = Arc::new(roster);
    }

    /// Whether a forecast is of use to a request: where the choice of a model is open, or a floor asks for it. Among the
    /// instances of one model it would tell nobody apart.
    pub(crate) fn is_useful_to(&self, request: &Request) -> bool {
        self.predictor.is_some() && (request.target == Target::Auto || request.wishes.quality_min.is_some())
    }

    /// What is expected of each served model's answer to a prompt; `None` where nothing is known of any. Takes about a
    /// tenth of a millisecond.
    pub(crate) fn forecast(&self, text: &str) -> Option<Forecast> {
        let predictor = self.predictor.as_ref()?;
        let roster = Arc::clone(&self.roster.read());
        (!roster.is_empty()).then(|| roster.forecast(predictor, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predictor_is_asked_for_by_name_or_path() {
        let read = |text: &str| text.parse::<PredictorSource>().expect("never fails");
        assert_eq!(read("embedded"), PredictorSource::Embedded);
        assert_eq!(read("off"), PredictorSource::Off);
        assert_eq!(read("./my.eqp"), PredictorSource::File("./my.eqp".into()));
    }

    #[test]
    fn only_models_that_are_served_and_known_are_forecast() {
        let forecaster = Forecaster::new(&PredictorSource::Embedded).expect("is well");
        assert_eq!(forecaster.forecast("1 + 1?"), None);
        for name in ["meta-llama/Llama-3.1-8B-Instruct", "house-blend"] {
            forecaster.declare(&ModelProfile::named(name));
        }
        let forecast = forecaster.forecast("1 + 1?").expect("of one");
        let names: Vec<&str> = forecast.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["meta-llama/Llama-3.1-8B-Instruct"]);
        let off = Forecaster::new(&PredictorSource::Off).expect("nothing to go wrong");
        off.declare(&ModelProfile::named("llama-3.1-8b"));
        assert_eq!(off.forecast("1 + 1?"), None);
    }
}
