package manifold

import "time"

// Build is one run of the slug compiler, by a push or by the API.
type Build struct {
	ID         string    `json:"id"`
	App        string    `json:"app"` // App.ID
	User       string    `json:"user"`
	UserID     string    `json:"user_id"`
	Status     string    `json:"status"`  // BuildPending, BuildSucceeded, BuildFailed
	Version    string    `json:"version"` // of the source: a commit, or what the API was told
	Stack      string    `json:"stack"`
	Buildpacks []string  `json:"buildpacks,omitempty"`
	Slug       string    `json:"slug,omitempty"`    // Slug.ID, of one that succeeded
	Release    string    `json:"release,omitempty"` // Release.ID, likewise
	Output     string    `json:"output"`            // secret name of what it printed
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// A build's status in the Platform API's words. The release of a build that
// succeeded may still fail: see Release.Status.
const (
	BuildPending   = "pending"
	BuildSucceeded = "succeeded"
	BuildFailed    = "failed"
)

// MaxVersion bounds the version that a client gives its source, in bytes.
const MaxVersion = 256
