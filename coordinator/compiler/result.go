package compiler

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"
)

// maxResult bounds result.json: a Procfile and a bin/release in base64, and
// some names.
const maxResult = 1 << 20

// result is what the driver says of a build it finished. Its texts travel in
// base64, since the driver is a shell script and their bytes are anyone's.
type result struct {
	Language   []byte   `json:"language"` // what the last buildpack's bin/detect printed
	Procfile   *[]byte  `json:"procfile"` // nil: there is none
	Release    []byte   `json:"release"`  // what the last buildpack's bin/release printed
	Buildpacks [][]byte `json:"buildpacks"`
}

func readResult(path string) (result, error) {
	var r result
	f, err := os.Open(path)
	if err != nil {
		return r, fmt.Errorf("read the build's result: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResult+1))
	if err != nil {
		return r, fmt.Errorf("read the build's result: %w", err)
	}
	if len(text) > maxResult {
		return r, fmt.Errorf("read the build's result: it is larger than %d bytes", maxResult)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read the build's result: %w", err)
	}
	return r, nil
}

// language is the app's language as a name fit for a line of text.
func (r result) language() string { return tidy(string(r.Language)) }

// tidy makes one short printable line of a stranger's text.
func tidy(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60])
	}
	return s
}

// processTypes prints and returns the process types of the slug: those of the
// Procfile, and the buildpack's defaults where it does not name them.
func (b *build) processTypes(r result) (map[string]string, error) {
	b.out.step("Discovering process types")
	declared := map[string]string{}
	if r.Procfile != nil {
		var err error
		if declared, err = ParseProcfile(*r.Procfile); err != nil {
			return nil, refuse(err.Error(), "Correct the Procfile, commit it and push again.")
		}
	}
	defaults, err := parseRelease(r.Release)
	if err != nil {
		return nil, refuse("Push rejected, " + err.Error() + ".")
	}
	maps.DeleteFunc(defaults, func(name, _ string) bool { _, ok := declared[name]; return ok })

	label := "Default types for " + r.language()
	width := max(len(label), len("Procfile declares types"))
	b.out.detail("%-*s -> %s", width, "Procfile declares types", names(declared))
	if len(defaults) > 0 {
		b.out.detail("%-*s -> %s", width, label, names(defaults))
	}
	maps.Copy(declared, defaults)
	return declared, nil
}

func names(types map[string]string) string {
	if len(types) == 0 {
		return "(none)"
	}
	return strings.Join(slices.Sorted(maps.Keys(types)), ", ")
}
