// Package suggest finds the name that was meant by a misspelt one.
package suggest

// Nearest is the known name that is at most three typing errors away, or empty.
func Nearest(name string, known []string) string {
	best, least := "", 4
	for _, candidate := range known {
		if d := typingErrors(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// typingErrors is how many letters have to be added, dropped, replaced or swapped
// with the next one to make b of a (the optimal string alignment distance).
func typingErrors(a, b string) int {
	var before, above []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := above[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
