package manifold

import "strings"

// Feature is something an app's owner may turn on and off, as
// `heroku features` shows it. Turning one restarts nothing.
type Feature struct {
	Name        string
	Description string // for people, one sentence
	Default     bool   // of an app that said nothing
}

// The features there are.
const (
	FeaturePreboot            = "preboot"
	FeatureDailyCycling       = "daily-cycling"
	FeatureRuntimeMetrics     = "log-runtime-metrics"
	FeatureProgressiveBackoff = "progressive-backoff"
)

var features = []Feature{
	{FeatureDailyCycling, "Replace each dyno once a day, at a moment of its own.", true},
	{FeatureRuntimeMetrics, "Write each dyno's memory and load into the app's log every 20 seconds.", false},
	{FeaturePreboot, "Start new dynos and wait until they are up before the old ones are stopped.", true},
	{FeatureProgressiveBackoff, "Let a dyno that crashes again and again wait longer each time instead of ten minutes.", false},
}

// Features lists every feature there is, by name.
func Features() []Feature { return append([]Feature(nil), features...) }

// ParseFeature finds a feature by name, in any letter case.
func ParseFeature(name string) (Feature, error) {
	known := make([]string, len(features))
	for i, f := range features {
		if strings.EqualFold(f.Name, name) {
			return f, nil
		}
		known[i] = f.Name
	}
	return Feature{}, invalid("Feature", "%q is not one of %s", clip(name), strings.Join(known, ", "))
}

// Feature says whether a feature is on for the app: what its owner said, else
// the feature's default. One that is not known is off.
func (a App) Feature(name string) bool {
	if on, said := a.Features[name]; said {
		return on
	}
	for _, f := range features {
		if f.Name == name {
			return f.Default
		}
	}
	return false
}
