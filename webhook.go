package manifold

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Webhook is a receiver outside the platform that is told what happens to an
// app.
type Webhook struct {
	ID            string    `json:"id"`  // UUID
	App           string    `json:"app"` // App.ID
	URL           string    `json:"url"` // secret: it may hold a password
	Include       []string  `json:"include"`
	Level         string    `json:"level"`                   // WebhookNotify, WebhookSync; both are tried again
	Secret        string    `json:"secret"`                  // what bodies are signed with
	Authorization string    `json:"authorization,omitempty"` // header to send; secret
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
}

// MaxWebhooks is how many webhooks an app may have.
const MaxWebhooks = 10

// The levels of a webhook.
const (
	WebhookNotify = "notify"
	WebhookSync   = "sync"
)

// What a webhook may include: each stands for one kind of event.
const (
	EventApp          = "api:app"          // update: name, owner, maintenance mode, stack of the next build
	EventBuild        = "api:build"        // create; update when it has ended
	EventCollaborator = "api:collaborator" // create, destroy
	EventDomain       = "api:domain"       // create, destroy
	EventFormation    = "api:formation"    // update: quantity, size
	EventRelease      = "api:release"      // create; update when a release command has ended
	EventDyno         = "dyno"             // create; update with each new state; destroy
)

// WebhookEvents lists what a webhook may include.
func WebhookEvents() []string {
	return []string{EventApp, EventBuild, EventCollaborator, EventDomain, EventFormation, EventRelease, EventDyno}
}

// Check says what is wrong with what a person chose of a webhook.
func (w Webhook) Check() error {
	if err := CheckDrainURL(w.URL); err != nil {
		return err
	}
	if u, err := url.Parse(w.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return &InvalidError{What: "Url", Why: "must begin with https:// or http://"}
	}
	if w.Level != WebhookNotify && w.Level != WebhookSync {
		return &InvalidError{What: "Level", Why: "must be " + WebhookNotify + " or " + WebhookSync}
	}
	known := func(name string) bool { return slices.Contains(WebhookEvents(), name) }
	once := slices.Compact(slices.Sorted(slices.Values(w.Include)))
	if len(w.Include) == 0 || len(once) < len(w.Include) || slices.ContainsFunc(w.Include, func(name string) bool { return !known(name) }) {
		return &InvalidError{What: "Include", Why: "must name, each once, some of what this platform tells of: " + strings.Join(WebhookEvents(), ", ")}
	}
	// Both go into a header or beside one.
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if len(w.Secret) > 256 || strings.ContainsFunc(w.Secret, odd) {
		return &InvalidError{What: "Secret", Why: "must be at most 256 printable ASCII characters"}
	}
	if len(w.Authorization) > 2048 || strings.ContainsFunc(w.Authorization, odd) {
		return &InvalidError{What: "Authorization", Why: "must be at most 2,048 printable ASCII characters"}
	}
	return nil
}

// WebhookEvent is what a webhook tells of. It holds no secret.
type WebhookEvent struct {
	ID      string `json:"id"`       // UUID
	App     string `json:"app"`      // App.ID
	AppName string `json:"app_name"` // as it was then
	Include string `json:"include"`  // EventRelease, …
	Action  string `json:"action"`   // ActionCreate, …
	ActorID string `json:"actor_id"` // of who began it; the nil UUID: the platform, or someone who is gone
	Actor   string `json:"actor"`    // email, likewise
	WebhookSubject
	Was       *WebhookSubject `json:"was,omitempty"` // before an update
	CreatedAt time.Time       `json:"created_at"`
}

// WebhookSubject is what an event is about: one of these.
type WebhookSubject struct {
	Release      *Release      `json:"release,omitempty"`
	Serves       bool          `json:"serves,omitempty"` // the release was the one that dynos run
	Build        *Build        `json:"build,omitempty"`
	Of           *App          `json:"of,omitempty"` // without buildpacks, whose URLs may hold passwords
	Formation    *Formation    `json:"formation,omitempty"`
	Domain       *Domain       `json:"domain,omitempty"`
	Collaborator *Collaborator `json:"collaborator,omitempty"`
	Email        string        `json:"email,omitempty"`   // of the app's owner, or the collaborator
	Command      string        `json:"command,omitempty"` // of the formation's type
	Dyno         *WebhookDyno  `json:"dyno,omitempty"`
}

// WebhookDyno is a dyno as a webhook is told of it.
type WebhookDyno struct {
	ID        string    `json:"id"` // of its assignment
	Name      string    `json:"name"`
	Type      string    `json:"type"`
	Command   string    `json:"command"`
	Size      string    `json:"size"`
	State     State     `json:"state"`
	Release   int       `json:"release"` // version
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"` // since when it is in the state
}

// The actions of events.
const (
	ActionCreate  = "create"
	ActionUpdate  = "update"
	ActionDestroy = "destroy"
)

// WebhookDelivery is an event on its way to a webhook.
//
//	pending ──▶ succeeded
//	   └▶ retrying ──▶ succeeded, failed
type WebhookDelivery struct {
	ID        string          `json:"id"`      // UUID
	Seq       int64           `json:"seq"`     // counts an app's deliveries from 1
	Webhook   string          `json:"webhook"` // Webhook.ID
	Level     string          `json:"level"`
	Event     WebhookEvent    `json:"event"`
	Status    string          `json:"status"`
	Attempts  int             `json:"attempts"`
	Last      *WebhookAttempt `json:"last,omitempty"`
	NextAt    time.Time       `json:"next_at,omitzero"` // of the next attempt; zero: there is none
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
}

// WebhookAttempt is one try of a delivery.
type WebhookAttempt struct {
	ID        string    `json:"id"`              // UUID
	Code      int       `json:"code,omitempty"`  // HTTP status; 0: there was no answer
	Error     string    `json:"error,omitempty"` // why there was none, in a word
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// A delivery's status in the Platform API's words.
const (
	DeliveryPending   = "pending"
	DeliveryRetrying  = "retrying"
	DeliverySucceeded = "succeeded"
	DeliveryFailed    = "failed"
)
