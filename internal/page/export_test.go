package page

import "time"

// Patiently lets reading take as long as a slow machine needs.
func (p *Page) Patiently() { p.patience = time.Minute }
