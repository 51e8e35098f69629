package manifold

import (
	"strings"
	"testing"
)

func TestWebhookCheck(t *testing.T) {
	good := Webhook{URL: "https://u:p@example.com/hooks?x=y", Include: []string{EventRelease, EventBuild}, Level: WebhookSync, Secret: "s", Authorization: "Bearer x"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for words, change := range map[string]func(*Webhook){
		"begin with https://":  func(w *Webhook) { w.URL = "syslog://h:514" },
		"must begin":           func(w *Webhook) { w.URL = "file:///etc/passwd" },
		"needs a host":         func(w *Webhook) { w.URL = "http:///x" },
		"Level must be":        func(w *Webhook) { w.Level = "loud" },
		"Include must":         func(w *Webhook) { w.Include = nil },
		"api:build":            func(w *Webhook) { w.Include = []string{"api:addon"} },
		"each once":            func(w *Webhook) { w.Include = []string{EventBuild, EventBuild, EventBuild} },
		"Secret must be":       func(w *Webhook) { w.Secret = strings.Repeat("x", 257) },
		"Authorization must":   func(w *Webhook) { w.Authorization = "a\r\nX: y" },
		"printable ASCII":      func(w *Webhook) { w.Secret = "ü" },
		"2,048 printable":      func(w *Webhook) { w.Authorization = strings.Repeat("x", 2049) },
		"is too long, or hold": func(w *Webhook) { w.URL = "https://h/\n" },
	} {
		w := good
		change(&w)
		if err := w.Check(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v, want %q", w, err, words)
		}
	}
}
