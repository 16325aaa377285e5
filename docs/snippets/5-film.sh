diffsteer sample runs/color --steer color=#1ae680 --seeds 0-3 --film --out pictures/green.png
