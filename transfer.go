package manifold

import "time"

// Transfer is an app's owner offering it to another user. An app has one at
// most: a later one takes the place of one that was decided.
type Transfer struct {
	ID        string    `json:"id"`        // UUID
	App       string    `json:"app"`       // App.ID
	Owner     string    `json:"owner"`     // User.ID of who offers it
	Recipient string    `json:"recipient"` // User.ID
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// A transfer's state in the Platform API's words.
const (
	TransferPending  = "pending"
	TransferAccepted = "accepted"
	TransferDeclined = "declined"
)
