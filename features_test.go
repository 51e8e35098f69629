package manifold

import (
	"slices"
	"strings"
	"testing"
)

func TestFeatures(t *testing.T) {
	all := Features()
	if !slices.IsSortedFunc(all, func(a, b Feature) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("features are not sorted by name")
	}
	for _, f := range all {
		if got, err := ParseFeature(strings.ToUpper(f.Name)); err != nil || got != f {
			t.Errorf("ParseFeature(%q) = %v, %v", f.Name, got, err)
		}
		if (App{}).Feature(f.Name) != f.Default {
			t.Errorf("%s is not %v where nobody said", f.Name, f.Default)
		}
		if (App{Features: map[string]bool{f.Name: !f.Default}}).Feature(f.Name) == f.Default {
			t.Errorf("%s does not follow what was said", f.Name)
		}
	}
	if _, err := ParseFeature("teleport"); err == nil {
		t.Error("an unknown feature was found")
	}
	if (App{}).Feature("teleport") {
		t.Error("an unknown feature is on")
	}
}
