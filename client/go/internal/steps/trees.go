package steps

import (
	"errors"
	"fmt"
	"math"

	pb "sealserve.example/sealserve/internal/sealservev1"
)

// trees set the leaf of each tree that a row reaches.
//
// All rows take as many steps as the deepest leaf has: a leaf is its own child.
type trees struct {
	roots  []int32
	depths []int
	nodes  []treeNode
	leaves int
	// left has of each split by category which codes go to the left, by code; the last one stands
	// for all that is no category.
	left   [][]bool
	strict bool
	single bool // inputs are rounded to float32
}

type treeNode struct {
	threshold  float64
	children   [2]int32 // right, left
	feature    int32
	leaf       int32 // of a leaf its number over all trees
	split      int32 // the number of its split by category, or -1
	missesLeft bool
}

func makeTrees(message *pb.Trees, count int, total *budget) (rule, error) {
	nodes := 0
	for _, n := range message.GetNodeCounts() {
		if n < 1 || n > maxNodes {
			return nil, errors.New("a tree is empty or too large")
		}
		if nodes += int(n); nodes > maxNodes {
			return nil, fmt.Errorf("there are more than %d nodes", maxNodes)
		}
	}
	lists := []int{
		len(message.GetLeft()), len(message.GetRight()), len(message.GetFeatures()), len(message.GetThresholds()),
		len(message.GetMissesLeft()),
	}
	for _, length := range lists {
		if nodes == 0 || length != nodes {
			return nil, errors.New("each node needs children, an input, a threshold and a side for what is missing")
		}
	}
	if total.nodes += nodes; total.nodes > maxNodes {
		return nil, fmt.Errorf("there are more than %d nodes", maxNodes)
	}
	r := &trees{nodes: make([]treeNode, nodes), strict: message.GetStrict(), single: message.GetRoundsToFloat32()}
	first := 0
	for _, n := range message.GetNodeCounts() {
		if err := r.addTree(message, first, int(n), count); err != nil {
			return nil, err
		}
		first += int(n)
	}
	return r, r.addSplits(message, total)
}

// addTree checks and adds the tree that begins at a node.
func (r *trees) addTree(message *pb.Trees, first, count, inputs int) error {
	depth := make([]int, count)
	hasParent := make([]bool, count)
	deepest := 0
	for k := range count {
		at := first + k
		left, right := message.GetLeft()[at], message.GetRight()[at]
		threshold := message.GetThresholds()[at]
		if math.IsNaN(threshold) || math.IsInf(threshold, -1) {
			return errors.New("a threshold is no number, or minus infinity")
		}
		if int64(message.GetFeatures()[at]) >= int64(inputs) {
			return errors.New("a node compares an input that there is not")
		}
		if k > 0 && !hasParent[k] {
			return errors.New("a node is the child of none")
		}
		node := treeNode{
			threshold: threshold, feature: int32(message.GetFeatures()[at]), missesLeft: message.GetMissesLeft()[at],
			split: -1, children: [2]int32{int32(at), int32(at)},
		}
		if left == 0 && right == 0 {
			node.leaf = int32(r.leaves)
			r.leaves++
			deepest = max(deepest, depth[k])
		} else {
			for side, child := range []uint32{right, left} {
				if int64(child) <= int64(k) || int64(child) >= int64(count) || hasParent[child] {
					return errors.New("a child is not after its parent, not in its tree, or the child of two nodes")
				}
				hasParent[child], depth[child] = true, depth[k]+1
				node.children[side] = int32(first + int(child))
			}
			if depth[k] >= maxDepth {
				return fmt.Errorf("a tree is deeper than %d levels", maxDepth)
			}
		}
		r.nodes[at] = node
	}
	r.roots, r.depths = append(r.roots, int32(first)), append(r.depths, deepest)
	return nil
}

func (r *trees) addSplits(message *pb.Trees, total *budget) error {
	categoryCount, before := 0, int64(-1)
	for _, split := range message.GetCategorySplits() {
		at := int64(split.GetNode())
		if at <= before || at >= int64(len(r.nodes)) || r.nodes[at].children[0] == int32(at) {
			return errors.New("the nodes of category splits do not increase, or are leaves")
		}
		before = at
		for _, side := range [][]uint32{split.GetLeft(), split.GetRight()} {
			for i, category := range side {
				if category >= maxCategory || (i > 0 && category <= side[i-1]) {
					return errors.New("categories of a node do not increase, or are too large")
				}
				categoryCount = max(categoryCount, int(category)+1)
			}
		}
	}
	total.memberships += len(message.GetCategorySplits()) * (categoryCount + 1)
	if total.memberships > maxMemberships {
		return errors.New("there are too many categories of nodes")
	}
	for number, split := range message.GetCategorySplits() {
		node := &r.nodes[split.GetNode()]
		node.split = int32(number)
		left, known := make([]bool, categoryCount+1), make([]bool, categoryCount+1)
		for code := range left {
			left[code] = node.missesLeft
		}
		for _, category := range split.GetLeft() {
			left[category], known[category] = true, true
		}
		for _, category := range split.GetRight() {
			if known[category] {
				return errors.New("a category goes both to the left and to the right")
			}
			left[category] = false
		}
		r.left = append(r.left, left)
	}
	return nil
}

func (r *trees) width() int { return r.leaves }
func (r *trees) operations() int {
	deepest := 0
	for _, depth := range r.depths {
		deepest = max(deepest, depth)
	}
	return r.leaves + len(r.roots)*(operationsARule+8*deepest)
}

func (r *trees) apply(inputs, outputs []Value) bool {
	clear(outputs)
	for i := range inputs {
		if r.single {
			inputs[i].Number = float64(float32(inputs[i].Number))
		}
	}
	for t, at := range r.roots {
		for range r.depths[t] {
			node := &r.nodes[at]
			side := 0
			if r.goesLeft(node, inputs[node.feature].Number) {
				side = 1
			}
			at = node.children[side]
		}
		outputs[r.nodes[at].leaf].Number = 1
	}
	return false
}

func (r *trees) goesLeft(node *treeNode, x float64) bool {
	switch {
	case math.IsNaN(x):
		return node.missesLeft
	case node.split >= 0:
		left := r.left[node.split]
		code := len(left) - 1
		if x >= 0 && x < float64(code) && x == math.Floor(x) {
			code = int(x)
		}
		return left[code]
	case r.strict:
		return x < node.threshold
	default:
		return x <= node.threshold
	}
}
