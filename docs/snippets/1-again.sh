diffsteer sample --from pictures/first.png --out pictures/first-again.png
