//! What a request is expected to get from a model, whichever of its instances answers: found once a decision, not once
//! an instance.

use std::cell::{RefCell, RefMut};

use equipoise_estimate::{AloneMemo, LengthEstimate, QualityEstimate};
use equipoise_fleet::{Fleet, ModelState};
use equipoise_policy::Request;
use equipoise_types::{ModelId, Timestamp};

/// From one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    pub(crate) length: LengthEstimate,
    pub(crate) quality: QualityEstimate,
    /// The batch that its requests join.
    pub(crate) company: f64,
    /// The mean length that was forecast from the prompt, where one was.
    pub(crate) forecast_output_tokens: Option<f64>,
}

impl Prospect {
    pub(crate) fn of(now: Timestamp, request: &Request, model: &ModelState) -> Self {
        let forecast = request
            .forecast
            .as_ref()
            .and_then(|forecast| forecast.of_names(&model.name, &model.canonical_name));
        let limit = request.max_output_tokens;
        match forecast {
            Some(forecast) => Self {
                length: model.length.predict_from(now, &forecast.output_tokens, limit),
                quality: model.quality.predict_from(now, forecast),
                company: model.company(now),
                forecast_output_tokens: Some(forecast.output_tokens.mean),
            },
            None => Self {
                length: model.length.predict(limit),
                quality: model.quality.predict(now),
                company: model.company(now),
                forecast_output_tokens: None,
            },
        }
    }
}

/// From every model, by its id; and what the request costs alone on engines that were asked already.
#[derive(Clone, Debug)]
pub(crate) struct Prospects {
    of_models: Vec<Prospect>,
    alone: RefCell<AloneMemo>,
}

impl Prospects {
    pub(crate) fn of(now: Timestamp, fleet: &Fleet, request: &Request) -> Self {
        Self {
            of_models: fleet.models().map(|model| Prospect::of(now, request, model)).collect(),
            alone: RefCell::default(),
        }
    }

    /// The longest mean answer of any model: what a request may be expected to cost before its model is known.
    pub(crate) fn answer_tokens(&self) -> u64 {
        let means = self.of_models.iter().map(|prospect| prospect.length.mean);
        means.fold(0.0, f64::max).ceil() as u64
    }

    pub(crate) fn with_model(&self, model: ModelId) -> Option<&Prospect> {
        self.of_models.get(model.index())
    }

    /// To be held for one prediction.
    pub(crate) fn alone(&self) -> RefMut<'_, AloneMemo> {
        self.alone.borrow_mut()
    }
}

/// A request as predictions see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    /// Since it arrived at the router.
    pub(crate) waited_s: f64,
    pub(crate) prospects: &'a Prospects,
}
